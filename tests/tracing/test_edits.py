from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import EditError, SiteError
from interp.tracing import (
    Apply,
    Boost,
    Guide,
    Knockout,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
    image_mask,
    positions,
)
from interp.tracing.edits import check_edits, check_last_of_generated, check_order
from interp.tracing.values import for_samples
from tests import tiny


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site": "last"}, r"Knockout takes a Site first, such as Site\(layers=\[16\]\); got 'last'"),
        ({"site": Site(), "mode": "drop"}, r'mode is "renormalise" or "zero"; got \'drop\''),
        (
            {"site": Site(queries="after_image"), "steps": "decode"},
            r'steps="decode" needs .* "last", "reasoning" or "answer"; got queries=\(\'after_image\',\)',
        ),
        (
            {"site": Site(), "steps": "generate"},
            r'steps is "prefill", "decode" or "all"; got \'generate\'',
        ),
    ],
)
def test_wrong_knockouts_are_explained(arguments, message, unchecked):
    with pytest.raises(EditError, match=message):
        Knockout(**arguments)


def test_wrong_reads_are_explained(unchecked):
    with pytest.raises(
        SiteError, match=r"Rows reads a Site, as in Rows\(Site\(layers=\[14\]\)\); got 'last'"
    ):
        Rows("last")
    with pytest.raises(SiteError, match=r'reduce is None or "head"; got \'layer\''):
        Rows(Site(), reduce="layer")


def test_stages():
    assert Knockout(Site()).stage == "scores"
    assert Knockout(Site(), "zero").stage == "probabilities"


def double(values, cells):
    return values * 2


ROWS = np.full((3, 4, 1, 16), 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ScaleWeights("last", 2),
            r"ScaleWeights takes a Site first, such as Site\(layers=\[16\]\); got 'last'",
        ),
        (lambda: ScaleWeights(Site(), -1), r"factor is a finite number ≥ 0 that float32 can hold; got -1"),
        (lambda: ScaleScores(Site(), float("inf")), r"factor is a finite number ≥ 0.*got inf"),
        (lambda: Boost(Site(), None), r"alpha is a finite number that float32 can hold; got None"),
        (lambda: Guide(Site(), True), r"alpha is a finite number that float32 can hold; got True"),
        (
            lambda: Boost(Site(queries="answer"), 1.0),
            r'queries="answer" names rows of generated tokens.*Write steps="decode"',
        ),
        (
            lambda: Boost(Site(queries="reasoning"), 1.0),
            r'queries="reasoning" names rows of generated tokens.*Write steps="decode"',
        ),
        (lambda: ScaleWeights(Site(queries="text"), 1.0, "decode"), r"got queries=\('text',\)"),
        (
            lambda: PatchRows(Site(queries=("last", "image")), ROWS[None], "decode"),
            r'by queries="last"; got queries',
        ),
        (lambda: Boost(Site(), np.inf), r"alpha is a finite number that float32 can hold; got inf"),
        (lambda: Boost(Site(), np.nan), r"alpha is a finite number that float32 can hold; got nan"),
        (
            lambda: check_last_of_generated("all", ("last", "reasoning"), "Mine"),
            r'Mine names each generated token as "last"',
        ),
        (lambda: Apply(Site(), "double"), r"Apply takes a function of \(values, cells\); got 'double'"),
        (lambda: Apply(Site(), double, "softmax"), r'stage is "scores" or "probabilities"; got \'softmax\''),
        (lambda: PatchRows(Site(), ROWS[0]), r"values are an array of 4 dimensions.*got shape \(4, 1, 16\)"),
        (lambda: PatchRows(Site(), ROWS * np.nan), r"values must be finite"),
        (lambda: PatchRows(Site(), []), r"an array, or one array per sample; got none"),
        (lambda: PatchRows(Site(), [["x"]]), r"values are numbers.*got list"),
        (
            lambda: PatchRows(Site(queries="after_image"), ROWS, "all"),
            r'by queries="last"; got queries=\(\'after_image\',\) with steps=\'all\'',
        ),
        (lambda: PatchResidual([0], "last", ROWS[0, 0, 0]), r"values are an array of 3 dimensions.*\(16,\)"),
        (lambda: PatchResidual([0], "text", ROWS, "all"), r'by positions="last"; got positions='),
    ],
)
def test_wrong_edits_are_explained(make, message, unchecked):
    with pytest.raises(EditError, match=message):
        make()


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([ScaleWeights(Site(layers=[3]), 2.0)], r"the model has 3 layers, 0 … 2; got layer 3"),
        ([Guide(Site(heads=[(0, 4)]), 2.0)], r"the model has 4 heads, 0 … 3; got head 4"),
        ([Boost(Site(keys=positions([99])), 2.0)], r"positions run from 0 to 34; got 99"),
        (
            [ScaleScores(Site(keys=image_mask(np.ones(3, bool))), 2.0)],
            r"each of the 16 image tokens of sample 0 of the batch; got 3 values",
        ),
        ([PatchResidual([7], "last", np.zeros((1, 1, 64)))], r"the model has 3 layers, 0 … 2; got layer 7"),
    ],
)
def test_places_that_are_not_there_are_named(mllm, batch, edits, message):
    with pytest.raises(SiteError, match=message):
        mllm.trace(batch, edits=edits)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            PatchRows(Site(layers=[0, 1]), ROWS),
            r"sample 0 of the batch the site has \(2, 4, 1, 16\), \(layer, head, query, key\).*\(3, 4, 1, 16\)",
        ),
        (PatchRows(Site(heads=[(0, 1)]), ROWS[0]), r"the site has \(1, 1, 16\), \(head, query, key\)"),
        (PatchRows(Site(), [ROWS, ROWS]), r"values hold 2 arrays for a batch of 3 samples"),
        (PatchResidual([0, 1], "last", np.zeros((1, 1, 64))), r"names 2 layers and 1 position;.*\(1, 1\)"),
        (PatchResidual([0], "last", np.zeros((1, 1, 9))), r"the residual stream has 64 values.*have 9"),
        (
            Apply(Site(), lambda v, c: v[..., :3]),
            r"<lambda> must return values that broadcast to \(3, 4, 1, 40\)",
        ),
        (Apply(Site(), lambda v, c: v / 0 * 0), r"<lambda> must return finite values; got NaN or infinity"),
        (Apply(Site(), lambda v, c: 3.0), r"<lambda> must return a tensor; got float"),
    ],
)
def test_values_that_do_not_fit_are_explained(mllm, batch, edit, message):
    with pytest.raises(EditError, match=message):
        mllm.trace(batch, edits=[edit])


def test_steps_past_the_values_stay_as_they_are(mllm, batch):
    """Each sample has values for another number of steps."""
    site = Site(layers=[1], heads=[2])
    given = [np.full((n, 1, 1, 1, 16), 0.05) for n in (1, 3, 2)]
    reads = [Rows(site)]
    plain = mllm.trace(batch, reads=reads, generate=4)
    edited = mllm.trace(batch, reads=reads, edits=[PatchRows(site, given, "all")], generate=4)
    for one, values in zip(edited, given, strict=True):
        held = np.isclose(one.rows.values, 0.05, atol=1e-7).all((1, 2, 3, 4))
        assert held.tolist() == [step < len(values) for step in range(len(held))]
    assert any(len(one.rows) == 4 for one in plain)


def test_the_stream_of_samples_with_other_numbers_of_steps(mllm, batch):
    given = [np.full((n, 1, 1, 64), float(n)) for n in (1, 3, 2)]
    edit = PatchResidual([1], "last", given, "all")
    trace = mllm.trace(batch, reads=[Residual([1])], edits=[edit], generate=4)
    for one, values in zip(trace, given, strict=True):
        held = (one.residual.values == len(values)).all((1, 2, 3))
        assert held.tolist() == [step < len(values) for step in range(len(held))]
    with pytest.raises(EditError, match=r"vectors of all samples must have one size; got \[64, 65\]"):
        mllm.trace(batch, edits=[PatchResidual([1], "last", [np.zeros((1, 1, n)) for n in (64, 64, 65)])])


def test_rows_of_generated_tokens_need_generation(mllm, batch):
    for generate in (0, 1):
        with pytest.raises(EditError, match=rf"generate={generate} gives none of them a row"):
            mllm.trace(batch, edits=[ScaleWeights(Site(queries="answer"), 2.0, "all")], generate=generate)


def test_edits_that_leave_no_numbers_are_refused(mllm, batch):
    with pytest.raises(
        EditError, match=r"the edits leave logits that are not numbers \(NaN\) in torch.float32"
    ):
        mllm.trace(batch, edits=[ScaleWeights(Site(keys="all"), 3e38), ScaleWeights(Site(keys="all"), 3e38)])
    with pytest.raises(EditError, match=r"factor is a finite number ≥ 0 that float32 can hold; got 1e\+39"):
        ScaleWeights(Site(), 1e39)


@pytest.mark.parametrize(
    "edit",
    [
        ScaleWeights(Site(queries="all"), 1),
        ScaleScores(Site(queries="all"), 1.0),
        Boost(Site(queries="all"), 0),
        Guide(Site(queries="all"), 0.0),
        Apply(Site(queries="all"), lambda values, cells: values),
        Apply(Site(queries="all"), lambda values, cells: values, "scores"),
        ScaleWeights(Site(queries="image", keys=positions([30])), 3.0),  # keys after the rows
        Boost(Site(keys=image_mask(np.zeros(16, bool))), 3.0),
    ],
)
def test_an_edit_that_changes_nothing_keeps_every_bit(mllm, batch, edit):
    assert np.array_equal(mllm.trace(batch, edits=[edit]).logits, mllm.trace(batch).logits)


def test_what_was_read_patched_back_leaves_the_output_bit_equal(mllm, batch):
    site = Site(layers=[0, 2], queries="after_image", keys="all")
    plain = mllm.trace(batch, reads=[Rows(site)])
    rows = [one.rows.values for one in plain]
    assert np.array_equal(mllm.trace(batch, edits=[PatchRows(site, rows)]).logits, plain.logits)
    rows[1] = rows[1] * 1.5
    edited = mllm.trace(batch, edits=[PatchRows(site, rows)]).logits
    same = [np.array_equal(edited[i], plain.logits[i]) for i in range(3)]
    assert same == [True, False, True]


def test_an_edit_gives_no_mass_to_what_a_row_cannot_see(mllm, batch):
    """Ones everywhere: keys after the row, and padding, keep 0."""
    edit = Apply(Site(layers=[1], queries="all", keys="all"), lambda values, cells: torch.ones_like(values))
    trace = mllm.trace(batch, reads=[Rows(Site(layers=[1], queries="all", keys="all"))], edits=[edit])
    for one, tokens in zip(trace, batch.tokens, strict=True):
        expected = np.tril(np.ones((tokens.length, tokens.length)))
        np.testing.assert_array_equal(one.rows[0, 0], expected)


def test_pairs_are_patched_in_their_order(mllm, batch):
    site = Site(heads=[(2, 1), (0, 3), (2, 0)])
    values = np.arange(3 * 16).reshape(3, 1, 16) / 100
    trace = mllm.trace(batch, reads=[Rows(site)], edits=[PatchRows(site, values)])
    for one in trace:
        np.testing.assert_allclose(one.rows, values, atol=1e-7)


def test_edits_are_json_that_tells_them_apart():
    site = Site(layers=[1])
    edits = [
        ScaleWeights(site, 2.0),
        ScaleWeights(site, 2.0, "all"),
        ScaleScores(site, 2.0),
        Boost(site, 2.0),
        Guide(site, 2.0),
        Apply(site, double),
        Apply(site, test_stages),
        PatchRows(site, ROWS[:1]),
        PatchRows(site, ROWS[:1] * 2),
        PatchRows(site, [ROWS[:1]]),
        PatchResidual([1], "last", np.zeros((1, 1, 8))),
        PatchResidual([1], "last", np.ones((1, 1, 8))),
    ]
    assert len({str(edit.to_dict()) for edit in edits}) == len(set(edits)) == len(edits)
    assert PatchRows(site, ROWS[:1]) == PatchRows(site, torch.tensor(ROWS[:1]))


def scaled_by(k):
    def scaled(values, cells):
        return values * k

    return scaled


class Doubler:
    def double(self, values, cells):
        return values * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.add, r"does not determine what .*add computes"),
        (lambda values, cells: values * 2, r"does not determine what <lambda> computes"),
        (
            scaled_by(2),
            r"what scaled_by.<locals>.scaled computes: it uses k of the function around it.*default argument",
        ),
        (Doubler().double, r"what Doubler.double computes"),
    ],
)
def test_a_function_whose_source_does_not_say_all_is_not_hashed(function, message):
    with pytest.raises(EditError, match=message):
        Apply(Site(), function).to_dict()


def test_default_arguments_are_hashed():
    def scaled(values, cells, k=2.0):
        return values * k

    two = Apply(Site(), scaled).to_dict()
    scaled.__defaults__ = (3.0,)
    assert Apply(Site(), scaled).to_dict() != two


def test_numpy_numbers_are_numbers(mllm, unchecked):
    edit = ScaleWeights(Site(layers=[1]), np.float32(1.5))
    assert edit.to_dict() == ScaleWeights(Site(layers=[1]), 1.5).to_dict()
    mllm.trace(
        tiny.sample(), edits=[edit, ScaleWeights(Site(), np.int64(2))], generate=np.int64(1), seed=np.int64(3)
    )


def test_values_are_copied(mllm):
    values = ROWS[:1].copy()
    edit = PatchRows(Site(layers=[1]), values)
    values[:] = 9
    trace = mllm.trace(tiny.sample(), reads=[Rows(Site(layers=[1]))], edits=[edit])
    np.testing.assert_allclose(trace[0].rows, ROWS[:1], atol=1e-7)


def test_the_ends_of_each_number_are_taken():
    largest = float(torch.finfo(torch.float32).max)
    assert ScaleWeights(Site(), 0).factor == 0
    assert (ScaleScores(Site(), largest).factor, Boost(Site(), -largest).alpha) == (largest, -largest)
    check_last_of_generated("prefill", ("image",), "Mine")
    check_last_of_generated("all", ("all", "last"), "Mine")


@pytest.mark.parametrize(
    ("queries", "steps", "decodes", "stage", "prefill"),
    [
        ("last", "prefill", False, None, ("last",)),
        ("last", "all", True, None, ("last",)),
        ("last", "decode", True, None, ()),
        ("image", "all", False, None, ("image",)),
        ("answer", "all", True, "answer", ()),
        ("reasoning", "decode", True, "reasoning", ()),
        (("image", "reasoning"), "all", True, "reasoning", ("image",)),
        (("reasoning", "answer"), "all", True, None, ()),
        (("last", "answer"), "all", True, None, ("last",)),
    ],
)
def test_which_rows_an_edit_changes(queries, steps, decodes, stage, prefill):
    edit = Knockout(Site(queries=queries), steps=steps)
    assert (edit.decodes, edit.stage_of_tokens, edit.prefill_queries) == (decodes, stage, prefill)


def test_scores_are_edited_before_weights():
    late, early = ScaleWeights(Site(), 2.0), Boost(Site(), 1.0)
    check_order([early, Knockout(Site()), late, Knockout(Site(), "zero")])
    between = PatchResidual([0], "last", np.zeros((1, 1, 4)))
    for wrong in ([late, early], [early, late, Knockout(Site())], [late, between, early]):
        with pytest.raises(EditError, match="edits of scores come before edits of probabilities"):
            check_order(wrong)


def test_some_samples_keep_their_own_masks_and_values():
    """Samples 2 and 0 of three, in this order."""
    masks = [[True, False], [False, True], [True, True]]
    values = [np.full((1, 1, 4), float(i)) for i in range(3)]
    given = [
        Knockout(Site(queries=image_mask(masks), keys=("last", image_mask(masks)))),
        PatchResidual([0], "last", values),
        Residual(positions=("last", image_mask(masks))),
        Boost(Site(keys=image_mask(masks[0])), 1.0),
    ]
    own = image_mask([masks[2], masks[0]])
    knockout, patch, read, boost = for_samples(given, [2, 0], 3)
    assert knockout.site.groups == ((own,), ("last", own))
    assert [float(one.max()) for one in patch.values.arrays] == [2.0, 0.0]
    assert read.positions == ("last", own)
    assert boost is given[3]
    for wrong in (given[0], given[1]):
        with pytest.raises((SiteError, EditError), match="for a batch of 4 samples"):
            for_samples([wrong], [0], 4)
    assert float(given[1].values.of_sample(1, 3).max()) == 1.0
    one = PatchResidual([0], "last", values[2]).values
    assert float(one.of_sample(1, 3).max()) == 2.0


def test_numbers_of_edits_by_hand():
    """Two heads with the scores −2, 3 and 4, −1; the mean sizes over heads are 3 and 2."""
    values, cells = torch.tensor([[[[-2.0, 3.0]], [[4.0, -1.0]]]]), torch.tensor([[[[True, False]]]])
    found = {
        Boost(Site(), 0.5): [[-1, 4.5], [6, -0.5]],
        Boost(Site(), -1.0): [[-4, 0], [0, -2]],
        Guide(Site(), 0.5): [[-0.5, 4], [5.5, 0]],
        ScaleScores(Site(), 0.5): [[-1, 1.5], [2, -0.5]],
        Knockout(Site(), "zero"): [[0, 0], [0, 0]],
        Apply(Site(), lambda given, inside: given.masked_fill_(~inside, torch.inf)): [
            [-2, np.inf],
            [4, np.inf],
        ],
        Apply(Site(), lambda given, inside: given[:, :1, :, :1]): [[-2, -2], [-2, -2]],
    }
    for edit, expected in found.items():
        assert edit.on(values, cells)[0, :, 0].tolist() == expected
    assert values[0, :, 0].tolist() == [[-2, 3], [4, -1]]  # a function gets values of its own


def test_keyword_defaults_are_hashed():
    def scaled(values, cells, *, k=2.0):
        return values * k

    two = Apply(Site(), scaled).to_dict()
    scaled.__kwdefaults__ = {"k": 3.0}
    assert Apply(Site(), scaled).to_dict() != two


def test_what_is_no_list_of_edits_is_explained(unchecked):
    one = Knockout(Site())
    check_edits([one])
    check_edits(())
    for given, message in (
        (one, r"edits= is a list of edits .* Write edits=\[Knockout\(.*\]"),
        ("ab", r"edits= is a list of edits .*; got 'ab'\.$"),
        ({one}, "edits= is a list of edits"),
        ([one, Site()], r"edits= takes edits .* Write edits=\[interp\.Knockout\(Site"),
        ([Rows(Site())], r"edits= takes edits such as interp\.Knockout\(site\); got Rows"),
    ):
        with pytest.raises(EditError, match=message):
            check_edits(given)
