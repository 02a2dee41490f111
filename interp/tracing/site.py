"""Sites: values that say where in a model's attention to read or edit: layers and heads, queries and keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from jaxtyping import Bool, Int

from interp.errors import SiteError
from interp.inputs.text import count
from interp.inputs.tokens import TokenMap, Word

__all__ = [
    "GENERATED",
    "ImageMask",
    "LayerKind",
    "Layers",
    "Positions",
    "Selector",
    "Site",
    "image_mask",
    "kinds_of",
    "positions",
    "select",
    "select_each",
]

GENERATED = ("reasoning", "answer")
"""Groups of generated tokens: the thought, with its marks, and the tokens after it. Each generated token is in one."""

LayerKind = Literal["attention", "linear", "cross", "convolution"]
"""What mixes the tokens in a decoder layer: softmax attention to the sequence, a gated delta rule ("linear attention"),
softmax attention to the image alone ("cross"), or a short convolution."""

Layers: TypeAlias = Literal["all"] | LayerKind | Sequence[int]
"""The type of a site's `layers`."""


@dataclass(frozen=True)
class Positions:
    """Unpadded positions in each sample's sequence; made by `positions`."""

    positions: tuple[int, ...]


SHOWN = 4
"""The largest number of masks in the `repr` of an `ImageMask`."""


@dataclass(frozen=True)
class ImageMask:
    """Some of the image tokens: one mask for all samples, or one mask per sample; made by `image_mask`."""

    masks: tuple[tuple[bool, ...], ...]
    per_sample: bool = False

    def __repr__(self) -> str:
        shown = [f"{sum(mask)} of {len(mask)}" for mask in self.masks[:SHOWN]]
        more = [f"{len(self.masks) - SHOWN} more"] if len(self.masks) > SHOWN else []
        return f"ImageMask({', '.join([*shown, *more])})"

    def part(self, at: Sequence[int], n_samples: int) -> ImageMask:
        """The mask for some of `n_samples` samples.

        Raises:
            SiteError: A number of masks that is not the number of samples.
        """
        self.check(n_samples)
        return ImageMask(tuple(self.masks[i] for i in at), True) if self.per_sample else self

    def check(self, n_samples: int) -> None:
        """Raise `SiteError` if there is one mask per sample and their number is not the number of samples."""
        if self.per_sample and len(self.masks) != n_samples:
            raise SiteError(
                f"image_mask holds {count(len(self.masks), 'mask')} for a batch of {count(n_samples, 'sample')}. Give "
                "one mask per sample, or a single mask (token,) for all samples."
            )


Selector: TypeAlias = str | Word | Positions | ImageMask


def positions(values: Iterable[int]) -> Positions:
    """The given unpadded positions (0 is the sample's own first token), for a site's queries or keys.

    Raises:
        SiteError: Values that are not integers ≥ 0, or no values.
    """
    given = _many(values)
    if given is None:
        raise SiteError(
            f"positions([…]) takes a list of positions; got {values!r:.200}.{_as_positions([values])}"
        )
    found = tuple(_integer(v, "a position") for v in given)
    if not found:
        raise SiteError("positions([…]) needs at least one position; got none.")
    return Positions(tuple(sorted(set(found))))


def image_mask(mask: Any) -> ImageMask:
    """The image tokens where `mask` is True, for a site's keys or queries.

    Args:
        mask: bool (token,) over the N image tokens, used for every sample; or one such mask per sample, as a
            list of arrays (their N may differ) or an array (sample, token).

    Raises:
        SiteError: A mask that is not boolean or has another shape.
    """
    given = _many(mask)
    rows = [] if given is None else [_plain(row) for row in given]
    per_sample = any(row.ndim == 1 for row in rows)
    masks = rows if per_sample else [_plain(mask) if given is None else np.asarray(rows)]
    for one in masks:
        if one.dtype != bool or one.ndim != 1 or not one.size:
            raise SiteError(
                "image_mask takes booleans over the image tokens, shape (token,), or one such mask per "
                f"sample; got {one.dtype} of shape {one.shape}. Write for instance image_mask(map > "
                "threshold)."
            )
    return ImageMask(tuple(tuple(one.tolist()) for one in masks), per_sample)


def _plain(mask: Any) -> np.ndarray:
    """A mask as an array; the mask may be a tensor of any dtype on any device."""
    return np.asarray(mask.tolist() if hasattr(mask, "detach") else mask)


_NONE: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class Site:
    """Rows and columns of attention. Fields are stored as tuples, so sites can be hashed, compared and serialised.

    Args:
        layers: decoder layers, 0-based, all of one kind; or "all", every layer with a softmax (in most models, all
            layers); or a kind (`Mllm.layer_kinds`): "attention", layers that attend to their own sequence; "cross",
            layers whose keys come from the image; "linear", the gated DeltaNet layers of a hybrid model; "convolution",
            the short convolutions of a hybrid model, for the residual stream only. Leave it out if `heads` are pairs.
        heads: "all", a list of heads (the same in every layer), or a list of (layer, head) pairs.
        queries: the rows: a group of `TokenMap.positions` ("last", "after_image", "question", "text", "image"), "all"
            for the whole prompt, `interp.word(…)`, `positions([…])`, `image_mask(…)`, or a list of several of these;
            "answer" for the rows of generated tokens (if the model thinks, only those after the thought); "reasoning"
            for the rows of the thought that a model generates before its answer. Positions are unpadded.
        keys: the columns, named like the queries, but without "answer" and "reasoning". Positions are unpadded.
        tower: "vision" for the attention of the vision encoder; None for the language model. With "vision", layers and
            heads are those of the vision encoder, and queries and keys are its patches: "patches" ("image" means the
            same), "cls" and "register" if it has such tokens, "all", `positions([…])` of a `PatchMap`, or
            `image_mask(…)` over patches. `queries` must then be given, because "last" is not a group of patches.

    Raises:
        SiteError: Values of the wrong kind, pairs together with layers, an empty selection, or groups that the vision
            tower does not have.
    """

    layers: Layers = "all"
    heads: Literal["all"] | Sequence[int] | Sequence[tuple[int, int]] = "all"
    queries: Selector | Sequence[Selector] = "last"
    keys: Selector | Sequence[Selector] = "image"
    tower: Literal["vision"] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        named = isinstance(self.layers, str) and self.layers in get_args(LayerKind)
        put(self, "layers", self.layers if named else _indices(self.layers, "layers"))
        put(self, "heads", _heads(self.heads))
        put(self, "queries", _selectors(self.queries, "queries"))
        put(self, "keys", _selectors(self.keys, "keys"))
        if self.pairs is not None and self.layers != "all":
            raise SiteError(
                f"(layer, head) pairs already name layers: leave out layers={_written(self.layers)!r}, or write heads= "
                "without layers, such as heads=[0]."
            )
        if self.tower is not None:
            _check_tower(self.tower, self.groups)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...] | None:
        """The (layer, head) pairs, or None when `heads` are not pairs."""
        paired = self.heads != "all" and isinstance(self.heads[0], tuple)
        return cast(tuple[tuple[int, int], ...], self.heads) if paired else None

    @property
    def groups(self) -> tuple[tuple[Selector, ...], tuple[Selector, ...]]:
        """The selectors of the queries and of the keys."""
        return cast(tuple[Selector, ...], self.queries), cast(tuple[Selector, ...], self.keys)

    def resolve(
        self,
        n_layers: int,
        n_heads: int,
        linear: Mapping[int, int] = _NONE,
        whose: str = "model",
        cross: Collection[int] = (),
    ) -> dict[int, tuple[int, ...]]:
        """The layers and heads that the site names: layer → heads, both in the order given.

        Args:
            n_layers: the number of decoder layers in the model, of every kind.
            n_heads: the number of query heads in each attention layer.
            linear: the layers without a softmax, in a hybrid model → the number of (value) heads of each; 0 for a short
                convolution.
            whose: a noun that says, in errors, what the layers belong to.
            cross: the cross-attention layers, whose keys come from the image.

        Raises:
            SiteError: A layer or head that the model does not have, linear layers together with others, or short
                convolutions.
        """
        for name, n in (("n_layers", n_layers), ("n_heads", n_heads)):
            if not _is_index(n) or n > _MOST:
                raise SiteError(f"{name} is an integer from 0 to {_MOST:,}; got {n!r:.200}.")
        if not isinstance(linear, Mapping) or not all(map(_is_index, (*linear, *linear.values()))):
            raise SiteError(f"linear is a dict, layer → number of heads; got {linear!r:.200}.")
        if (
            isinstance(cross, str | bytes)
            or not isinstance(cross, Collection)
            or not all(map(_is_index, cross))
        ):
            raise SiteError(f"cross is a list of the cross-attention layers' numbers; got {cross!r:.200}.")
        if not isinstance(whose, str):
            raise SiteError(f"whose is a noun for error messages, as text; got {whose!r:.200}.")
        if self.pairs is not None:
            found: dict[int, list[int]] = {}
            _no_convolution((layer for layer, _ in self.pairs), linear)
            for layer, head in self.pairs:
                own = linear.get(_within(layer, n_layers, "layer", whose), n_heads)
                found.setdefault(layer, []).append(_within(head, own, "head", whose))
            _one_kind(found, linear)
            return {layer: tuple(heads) for layer, heads in found.items()}
        layers = self._numbers(n_layers, linear, cross, whose)
        layers = [layer for layer in range(n_layers) if layer not in linear] if layers is None else layers
        _no_convolution(layers, linear)
        _one_kind(layers, linear)
        chosen: dict[int, tuple[int, ...]] = {}
        for layer in layers:
            n = linear.get(layer, n_heads)
            heads = range(n) if self.heads == "all" else cast(tuple[int, ...], self.heads)
            chosen[layer] = tuple(_within(head, n, "head", whose) for head in heads)
        return chosen

    def stream_layers(
        self, n_layers: int, linear: Mapping[int, int] = _NONE, cross: Collection[int] = ()
    ) -> tuple[int, ...]:
        """The layers that the site names, in the order given, for the residual stream; "all" names layers of all kinds.

        Raises:
            SiteError: A layer that the model does not have.
        """
        if self.pairs is not None:
            return tuple(self.resolve(n_layers, _MOST, dict.fromkeys(linear, _MOST)))
        found = self._numbers(n_layers, linear, cross)
        return tuple(range(n_layers) if found is None else found)

    def _numbers(
        self, n_layers: int, linear: Mapping[int, int], cross: Collection[int], whose: str = "model"
    ) -> Sequence[int] | None:
        """The layers that the site names by number or kind; None for "all"."""
        if self.layers == "all":
            return None
        if isinstance(self.layers, str):
            return _of_kind(self.layers, kinds_of(n_layers, linear, cross))
        return [_within(layer, n_layers, "layer", whose) for layer in cast(tuple[int, ...], self.layers)]

    def to_dict(self) -> dict[str, Any]:
        """The site as JSON values; `Site.from_dict` reads them back."""
        heads = self.heads if self.pairs is None else [list(pair) for pair in self.pairs]
        queries, keys = self.groups
        return {
            "layers": _written(self.layers),
            "heads": heads if heads == "all" else list(heads),
            "queries": [_selector_to_json(selector) for selector in queries],
            "keys": [_selector_to_json(selector) for selector in keys],
            **({} if self.tower is None else {"tower": self.tower}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Site:
        """The site that `to_dict` described.

        Raises:
            SiteError: Values that `to_dict` does not write.
        """
        try:
            queries, keys = ([_selector_from_json(s) for s in values[name]] for name in ("queries", "keys"))
            heads = values["heads"]
            if isinstance(heads, list):
                heads = [tuple(one) if isinstance(one, list) else one for one in heads]
            tower = values.get("tower")
            return cls(layers=values["layers"], heads=heads, queries=queries, keys=keys, tower=tower)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, SiteError):
                raise
            raise SiteError(
                f"a site as JSON has layers, heads, queries and keys, as Site.to_dict writes them; got {values!r:.200} "
                f"({type(error).__name__}: {error})."
            ) from error


TOWER_GROUPS = ("all", "patches", "image", "cls", "register")
"""Groups of positions that a vision tower may have."""


def _check_tower(tower: Any, groups: Sequence[Sequence[Selector]]) -> None:
    """Refuse unknown towers, and groups of tokens that no vision tower has.

    Raises:
        SiteError: A tower that is not "vision", or a group that no vision tower has.
    """
    if not isinstance(tower, str) or tower != "vision":
        raise SiteError(f'tower is "vision", or None for the language model; got {tower!r:.200}.')
    for name, group in zip(("queries", "keys"), groups, strict=True):
        for one in group:
            if isinstance(one, Positions | ImageMask) or one in TOWER_GROUPS:
                continue
            raise SiteError(
                f"{name}={one!r} is a group of the prompt's tokens, which the vision tower does not have. With "
                f'tower="vision" write {name}="patches", "all", "cls" or "register" (if the tower has such tokens), '
                "interp.positions([…]), or interp.image_mask(…) over patches."
            )


def select(
    selectors: Sequence[Selector], tokens: TokenMap, sample: int, n_samples: int
) -> Int[np.ndarray, " position"]:
    """All unpadded positions that the selectors name in one sample, increasing; there may be none.

    Raises:
        SiteError: A group that the prompt does not have, a position outside it, or a mask that does not fit the sample.
    """
    found = [_one(selector, tokens, sample, n_samples) for selector in selectors]
    if len(found) == 1 and not isinstance(selectors[0], Positions):  # a group's positions increase
        return found[0].astype(np.int64)
    return np.unique(np.concatenate(found)).astype(np.int64)


def select_each(
    selectors: Sequence[Selector], tokens: Sequence[TokenMap]
) -> tuple[Int[np.ndarray, " _"], ...]:
    """The unpadded positions that the selectors name in each sample of a batch; none if there are no selectors.

    Raises:
        SiteError: As in `select`.
    """
    if not selectors:
        return tuple(np.empty(0, np.int64) for _ in tokens)
    return tuple(select(selectors, own, i, len(tokens)) for i, own in enumerate(tokens))


def _one(selector: Selector, tokens: TokenMap, sample: int, n_samples: int) -> Int[np.ndarray, " position"]:
    if isinstance(selector, Positions):
        if selector.positions[-1] >= tokens.length:
            raise SiteError(
                f"sample {sample} of the batch has {tokens.length} {tokens.whole}, so positions run from 0 to "
                f"{tokens.length - 1}; got {selector.positions[-1]}. Count positions without padding."
            )
        return np.array(selector.positions)
    if isinstance(selector, ImageMask):
        return tokens.image[_mask_of(selector, tokens, sample, n_samples)]
    if selector == "all":
        return np.arange(tokens.length)
    if selector in GENERATED and selector not in tokens.spans:
        raise SiteError(
            f"{selector!r} is a group of tokens that the model generates; they are not keys or positions of the "
            f"prompt. To name their rows, write queries={selector!r} with generate=2 or more, and in an edit also "
            "steps='decode' or steps='all'."
        )
    return tokens.positions(selector)


def _mask_of(
    selector: ImageMask, tokens: TokenMap, sample: int, n_samples: int
) -> Bool[np.ndarray, " token"]:
    selector.check(n_samples)
    mask = np.array(selector.masks[sample if selector.per_sample else 0])
    if len(mask) != tokens.n:
        raise SiteError(
            f"image_mask needs one value for each of the {tokens.n} {tokens.counted} of sample {sample} of the batch; "
            f"got {count(len(mask), 'value')}."
        )
    return mask


def _selectors(value: Any, what: str) -> tuple[Selector, ...]:
    given = (value,) if isinstance(value, Selector) else _many(value)
    if not given:
        raise SiteError(
            f'{what}= is a group of tokens, such as "last", or a list of groups; got {value!r:.200}.'
            + _as_positions([value])
        )
    for one in given:
        if not isinstance(one, Selector):
            raise SiteError(
                f"{what}= takes group names, interp.word(…), interp.positions([…]) or interp.image_mask(…); "
                f"got {one!r:.200}.{_as_positions([one])}"
            )
    return given


def _as_positions(values: Sequence[Any]) -> str:
    """Advice on how to write the values as positions, if they are positions; else ""."""
    if not values or not all(map(_is_index, values)):
        return ""
    return f" For positions write interp.positions({[int(one) for one in values]!r})."


class _Heads(tuple):
    """Heads as a site stores them. A plain tuple of two numbers is refused: it could mean a (layer, head) pair."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(list(self))


def _heads(value: Any) -> Any:
    """ "all", heads, or a tuple of (layer, head) pairs."""
    given = None if isinstance(value, str) else _many(value)
    if given is None:
        return _indices(value, "heads")
    if type(value) is tuple and len(given) == 2 and all(map(_is_index, given)):
        first, second = map(int, given)
        raise SiteError(
            f"heads=({first}, {second}) could mean two things. For heads {first} and {second} of every layer write "
            f"heads=[{first}, {second}]; for head {second} of layer {first} write heads=[({first}, {second})]."
        )
    inner = [_many(one) for one in given]
    if not any(one is not None for one in inner):
        return _Heads(_indices(given, "heads"))
    if not all(one is not None and len(one) == 2 for one in inner):
        raise SiteError(
            f"heads= is a list of heads or a list of (layer, head) pairs, not a mixture; got {value!r:.200}."
        )
    pairs = [(_integer(one[0], "a layer"), _integer(one[1], "a head")) for one in inner if one is not None]
    return tuple(dict.fromkeys(pairs))


def _indices(value: Any, what: str) -> Any:
    """ "all", or a tuple of indices without repeats, in the order given."""
    if isinstance(value, str) and value == "all":
        return value
    given = None if isinstance(value, str) else _many(value)
    if given is None:
        write = (
            f"For a single one write {what}=[{int(value)}]."
            if _is_index(value)
            else f"For the first one write {what}=[0]."
        )
        last = (
            f" Numbers start at 0; the last one is mllm.n_{what} - 1."
            if isinstance(value, str) or (isinstance(value, int) and value < 0)
            else ""
        )
        raise SiteError(f'{what}= is "all" or a list of indices; got {value!r:.200}. {write}{last}')
    found = tuple(dict.fromkeys(_integer(v, f"one of {what}") for v in given))
    if not found:
        raise SiteError(f'{what}= selects nothing. Give at least one number, or "all".')
    return found


_MOST = 1_000_000
"""The largest number of indices or positions in one list. More must be a mistake, and could fill the memory."""


def _many(value: Any) -> tuple[Any, ...] | None:
    """The values of a list, an array or another collection; None for a single value, a text or a mapping.

    Raises:
        SiteError: More values than any model has.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return None
    if getattr(value, "ndim", 1) == 0 or hasattr(value, "iterrows"):
        return None
    found = tuple(islice(value, _MOST + 1))
    if len(found) > _MOST:
        raise SiteError(f"a list of indices or positions has at most {_MOST:,}; got more: {value!r:.200}.")
    return found


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


def _integer(value: Any, what: str) -> int:
    if not _is_index(value):
        raise SiteError(f"{what} is an integer, counted from 0; got {value!r:.200}.")
    return int(value)


def _within(index: int, n: int, what: str, whose: str) -> int:
    if index >= n:
        raise SiteError(f"the {whose} has {n} {what}s, 0 … {n - 1}; got {what} {index}.")
    return index


def _written(layers: Layers) -> Any:
    """Layers as JSON."""
    return layers if isinstance(layers, str) else list(layers)


def kinds_of(
    n_layers: int, linear: Mapping[int, int] = _NONE, cross: Collection[int] = ()
) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer, from the layers that are not of kind "attention"; see `Site.resolve`."""

    def kind(layer: int) -> LayerKind:
        if layer in linear:
            return "linear" if linear[layer] else "convolution"
        return "cross" if layer in cross else "attention"

    return tuple(kind(layer) for layer in range(n_layers))


def _of_kind(kind: str, kinds: Sequence[LayerKind]) -> list[int]:
    """The numbers of the layers of a kind.

    Raises:
        SiteError: The model has no layers of this kind.
    """
    found = [layer for layer, one in enumerate(kinds) if one == kind]
    if not found:
        raise SiteError(
            f"layers={kind!r} selects nothing: the model's {count(len(kinds), 'layer')} are of the kind "
            f"{' and '.join(map(repr, sorted(set(kinds))))} (mllm.layer_kinds). Write layers='all', or the numbers of "
            "layers."
        )
    return found


def _no_convolution(layers: Iterable[int], linear: Mapping[int, int]) -> None:
    """Raise `SiteError` for short convolutions, which have no heads and therefore no rows."""
    named = [layer for layer in dict.fromkeys(layers) if layer in linear and not linear[layer]]
    if named:
        raise SiteError(
            f"layers {named} of this model are short convolutions, which mix each token with the few tokens before it "
            "by fixed weights; they have no heads and no rows to read or edit. Name layers with a softmax, such as "
            'layers="attention" (mllm.layer_kinds).'
        )


def _one_kind(layers: Iterable[int], linear: Mapping[int, int]) -> None:
    """Raise `SiteError` for linear layers together with layers with a softmax: their rows cannot be compared."""
    named = list(layers)
    of_linear = [layer for layer in named if layer in linear]
    if of_linear and len(of_linear) < len(named):
        raise SiteError(
            f"a site names layers of one kind; layers {of_linear} of this model are linear (gated DeltaNet), but the "
            'other named layers have a softmax. Name layers of one kind, such as layers="attention", or make two sites.'
        )


def _selector_to_json(selector: Selector) -> Any:
    if isinstance(selector, str):
        return selector
    if isinstance(selector, Word):
        return {"word": selector.text}
    if isinstance(selector, Positions):
        return {"positions": list(selector.positions)}
    masks = ["".join("01"[bit] for bit in mask) for mask in selector.masks]
    return {"image_mask": masks if selector.per_sample else masks[0]}


def _selector_from_json(value: Any) -> Selector:
    if isinstance(value, str):
        return value
    ((kind, content),) = value.items()
    if kind == "word":
        return Word(content)
    if kind == "positions":
        return positions(content)
    masks = content if isinstance(content, list) else [content]
    return ImageMask(tuple(tuple(bit == "1" for bit in mask) for mask in masks), isinstance(content, list))
