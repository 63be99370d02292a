from conftest import tiny_vit
from torch.nn import functional as F

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.relearn import relearn_steps
from hf_unlearn.training.recipes import train_classifier


def test_steps_until_the_accuracy_is_back(images):
    """A model that knows needs none; a fresh one needs as many as a hand-written loop."""
    import torch

    few = ArrayDataset(images.pixel_values[:4], images.label_tensor[:4])
    knows = tiny_vit()
    train_classifier(knows, few, 0, max_steps=150, per_device_train_batch_size=4, warmup_steps=0, learning_rate=1e-2)
    kept = {n: v.clone() for n, v in knows.state_dict().items()}
    assert relearn_steps(knows, few, 1.0).value == 0
    assert all(torch.equal(v, kept[n]) for n, v in knows.state_dict().items())
    measured = relearn_steps(tiny_vit(), few, 1.0, learning_rate=1e-2, batch_size=4, max_steps=100)
    model, steps = tiny_vit(), 0
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    while (model(pixel_values=few.pixel_values).logits.argmax(1) != few.label_tensor).any():
        adam.zero_grad()
        F.cross_entropy(model(pixel_values=few.pixel_values).logits, few.label_tensor).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        steps += 1
    assert measured.value == steps > 0 and measured.details["reached"]
    short = relearn_steps(tiny_vit(), few, 1.0, learning_rate=1e-7, batch_size=4, max_steps=3)
    assert short.value == 3 and not short.details["reached"]
