"""Tasks: convert a call's inputs to a model's, and the model's outputs to results; ``pipeline`` documents them."""

from __future__ import annotations

from .base import Job, Task, check_options
from .classification import image_classification, nli, text_classification
from .embedding import feature_extraction, sentence_similarity, sparse_embedding
from .fill_mask import fill_mask
from .images import image_feature_extraction, saliency, zero_shot_image_classification
from .question_answering import question_answering
from .token_classification import token_classification

__all__ = ["TASKS", "Job", "Task", "check_options"]

TASKS: dict[str, Task] = {
    "feature-extraction": feature_extraction,
    "sentence-similarity": sentence_similarity,
    "sparse-embedding": sparse_embedding,
    "fill-mask": fill_mask,
    "text-classification": text_classification,
    "zero-shot/nli": nli,
    "token-classification": token_classification,
    "question-answering": question_answering,
    "image-feature-extraction": image_feature_extraction,
    "image-classification": image_classification,
    "zero-shot-image-classification": zero_shot_image_classification,
    "saliency": saliency,
}
