"""The training loop. It is deterministic by seed and resumable, and interruptions do not change the weights.

Every step draws its lessons from a generator seeded by (seed, step), so a checkpoint is weights, optimiser state
and a step number. Besides answering, the organism learns what each patch shows: an auxiliary loss moves projected
image tokens towards the words for their content and fades out over the last quarter. Without it, models this small do
not find the objects in the given time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from interp.data.scenes import SHAPES
from interp.errors import ModelError
from interp.organism.parts import IMAGE_TOKEN_ID, build_model
from studies.organism.batches import Batch, Packer
from studies.organism.lessons import ASPECTS, Lesson, MedicalPicture, medical_lesson, natural_lesson

__all__ = ["MAX_NAMES", "Recipe", "Trainer"]

MAX_NAMES = 128
"""Number of names of a patch: the shapes, the medical labels, and spare ones."""


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the weights. Changing any of them gives another organism."""

    seed: int = 0
    sight_steps: int = 450
    """Steps with only the auxiliary loss: the vision tower learns the content of patches before any question."""
    natural_steps: int = 750
    mixed_steps: int = 900
    sight_batch: int = 32
    batch: int = 16
    medical_share: float = 0.375
    """Share of each batch in the mixed steps."""
    turns: int = 12
    bare_share: float = 0.8
    """Share of the turns with the question alone, without the paper's instruction; they are shorter and so cheaper."""
    rate: float = 1.5e-3
    decay_share: float = 0.25
    """The last part of the steps, over which rate and auxiliary loss fall to zero."""
    warmup: int = 60
    weight_decay: float = 0.05
    drawn_share: float = 0.0
    """Share of drawn nuclei in the lessons on nuclei; see `studies.organism.drawn_nuclei`."""

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return self.sight_steps + self.natural_steps + self.mixed_steps

    def fade(self, step: int) -> float:
        """Returns 1, then a line to 0 over the last `decay_share` of the steps."""
        return min(1.0, (1 - step / self.steps) / self.decay_share)

    def scale(self, step: int) -> float:
        """Returns the learning rate's factor at a step: linear warm-up, constant, linear decay."""
        return min(1.0, (step + 1) / self.warmup) * self.fade(step)


class Heads(nn.Module):
    """Predicts the content of an image token by similarity to the embeddings of words.

    So image tokens come to lie near the words that name them, as in CLIP. The heads are dropped after training.
    """

    def __init__(self, vocabulary: dict[str, int]) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(-2.0))
        self.background = nn.Parameter(torch.zeros(len(ASPECTS)))
        self.vocabulary = vocabulary
        self.aspects = [torch.tensor([vocabulary[v] for v in values]) for values in ASPECTS.values()]

    def loss(
        self,
        tokens: Float[Tensor, "lesson token width"],
        words: Float[Tensor, "word width"],
        names: Sequence[str],
        batch: Batch,
    ) -> Float[Tensor, ""]:
        """Returns the loss of naming each token and telling its colour, size and side, in nats."""
        named = torch.stack(
            [words[[self.vocabulary[word] for word in name.split()]].mean(0) for name in names]
        )
        rendered = batch.aspects[:, 0, 0] >= 0
        total = tokens.new_zeros(())
        for chosen, columns in (
            (rendered, slice(0, len(SHAPES))),
            (~rendered, slice(len(SHAPES), len(names))),
        ):
            if chosen.any():
                truth = batch.names[chosen][..., columns]
                logits = self.scale * tokens[chosen] @ named[columns].T + self.bias
                weight = torch.where(truth > 0, 4.0, 1.0)
                losses = functional.binary_cross_entropy_with_logits(
                    logits, truth, weight=weight, reduction="none"
                )
                total = total + chosen.float().mean() * losses.sum(-1).mean()
        for k, ids in enumerate(self.aspects):
            logits = self.scale * tokens @ words[ids].T
            logits = torch.cat([self.background[k].expand(*logits.shape[:2], 1), logits], dim=-1)
            total = total + functional.cross_entropy(
                logits.flatten(0, 1), batch.aspects[..., k].flatten(), ignore_index=-1
            )
        return total


class Trainer:
    """Trains one organism with a recipe."""

    def __init__(self, recipe: Recipe, processor: LlavaProcessor) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step = recipe, 0
        self.packer = Packer(processor)
        self.model: LlavaForConditionalGeneration = build_model()
        self.heads = Heads(processor.tokenizer.get_vocab())
        self.pictures: Sequence[MedicalPicture] = ()
        self.names: list[str] = list(SHAPES)
        self.weights = [*self.model.parameters(), *self.heads.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.95)
        )

    def start_from(self, folder: Path) -> None:
        """Loads the weights of an organism saved in `folder`; the auxiliary heads are initialised anew."""
        known = LlavaForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        self.model.load_state_dict(known.state_dict())

    def teach_medical(self, pictures: Sequence[MedicalPicture]) -> None:
        """Adds the medical training slices that the mixed steps draw from."""
        labels = sorted({label for picture in pictures for label in picture.boxes})
        if len(SHAPES) + len(labels) > MAX_NAMES:
            raise ModelError(
                f"{len(labels)} medical labels; at most {MAX_NAMES - len(SHAPES)} fit the naming head."
            )
        self.pictures, self.names = pictures, [*SHAPES, *labels]

    def lessons(self, step: int) -> list[Lesson]:
        """Returns the lessons of a step, the same for the same seed and step."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 7, step])
        sight, mixed = step < recipe.sight_steps, step >= recipe.sight_steps + recipe.natural_steps
        n = recipe.sight_batch if sight else recipe.batch
        n_medical = round(recipe.medical_share * n) if mixed and self.pictures else 0
        turns = 1 if sight else recipe.turns
        lessons = [natural_lesson(rng, turns, recipe.bare_share, MAX_NAMES) for _ in range(n - n_medical)]
        padded = [*self.names, *[""] * (MAX_NAMES - len(self.names))]
        for _ in range(n_medical):
            picture = self.pictures[int(rng.integers(len(self.pictures)))]
            lessons.append(medical_lesson(picture, rng, recipe.turns, recipe.bare_share, padded))
        return lessons

    def see(self, batch: Batch) -> Float[Tensor, "lesson token width"]:
        """Returns the projected image tokens."""
        seen: Any = self.model.model.get_image_features(
            batch.pixels, vision_feature_layer=-1, vision_feature_select_strategy="default"
        )
        return torch.stack(list(seen.pooler_output))

    def answer(
        self, batch: Batch, features: Float[Tensor, "lesson token width"]
    ) -> tuple[Float[Tensor, "reply word"], Int[Tensor, " reply"]]:
        """Returns the logits of every reply token and the right token."""
        embeddings = self.model.get_input_embeddings()(batch.ids)
        embeddings = embeddings.masked_scatter((batch.ids == IMAGE_TOKEN_ID)[..., None], features)
        states = self.model.model.language_model(
            inputs_embeds=embeddings, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        asked = batch.labels != -100
        return self.model.lm_head(states[asked]), batch.labels[asked]

    def advance(self) -> dict[str, float]:
        """Takes one step and returns its figures: losses in nats, and the share of replies right by kind."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * self.recipe.scale(self.step)
        self.optimiser.zero_grad()
        batch = self.packer(self.lessons(self.step))
        features = self.see(batch)
        words: Any = self.model.get_input_embeddings().weight
        auxiliary = self.heads.loss(features, words, self.names, batch)
        loss, figures = self.recipe.fade(self.step) * auxiliary, {"auxiliary": auxiliary.item()}
        if self.step >= self.recipe.sight_steps:
            logits, truth = self.answer(batch, features)
            answer = functional.cross_entropy(logits, truth)
            loss = loss + answer
            figures |= {"answer": answer.item(), **self._right(logits, truth)}
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        self.step += 1
        return figures

    def _right(self, logits: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the share of replies right, by the values the reply is one of."""
        word = self.packer.processor.tokenizer.convert_tokens_to_ids
        right = logits.argmax(-1) == truth
        kinds = {**ASPECTS, "visible": ("yes", "no")}
        among = {
            kind: torch.isin(truth, torch.tensor([word(v) for v in values])) for kind, values in kinds.items()
        }
        return {kind: right[where].float().mean().item() for kind, where in among.items()}

    def save(self, path: Path) -> None:
        """Writes a checkpoint for `resume` atomically."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint of the same recipe.

        Raises:
            ModelError: The checkpoint was made with another recipe.
        """
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ModelError(
                f"{path} was made with {state['recipe']}, this run asks for {asdict(self.recipe)}. "
                "Remove the checkpoint or train in another folder."
            )
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def run(
        self, folder: Path, *, until: int | None = None, every: int = 50, log: Callable[[str], None] = print
    ) -> None:
        """Trains to the end (or to step `until`), resuming from and leaving `folder/checkpoint.pt`."""
        checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.exists():
            self.resume(checkpoint)
        began, end = time.time(), min(until or self.recipe.steps, self.recipe.steps)
        while self.step < end:
            figures = self.advance()
            if self.step % every == 0 or self.step == end:
                self.save(checkpoint)
                shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
                log(f"step {self.step} {shown} seconds {time.time() - began:.0f}")
