from __future__ import annotations

from torch import nn

from interp.tracing.parameters.modules import modules_of, named_modules


def test_a_model_is_listed_as_torch_lists_it() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(
        shared, nn.Sequential(nn.ReLU(), shared), nn.ModuleList([nn.ModuleDict({"a": nn.ReLU()})])
    )
    model.register_module("absent", None)
    assert [(name, module) for module, name in named_modules(model).items()] == list(model.named_modules())
    found = modules_of(model)
    assert found[0] is model
    assert len(found) == len(set(found))
    assert set(found) == set(model.modules())
