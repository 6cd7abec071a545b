"""A classifier of transformers, with a dict of inputs and scores in an object, from a search to its export."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertForSequenceClassification

import autoprune
from autoprune.engines import load_engine
from autoprune.export.study import export_trial
from autoprune.search.run import run_search
from autoprune.study.reader import StudyReader

TASK = """
import torch
from transformers import BertConfig, BertForSequenceClassification


def net():
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=20)
    return BertForSequenceClassification(BertConfig(num_labels=2, max_position_embeddings=8, **sizes))


class Sentences(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.ids = torch.randint(0, 20, (n, 8), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, int(ids[0] > 9)


def data():
    return {"train": Sentences(256, 0), "validation": Sentences(100, 1), "test": Sentences(100, 2)}
"""
SPACE = {
    "study": "bert",
    "task": {"model": "my_bert:net", "data": "my_bert:data"},
    "dense": {"epochs": 2},
    "training": {"epochs": 1, "optimizer": {"name": "adamw"}, "lr_schedule": {"kind": "constant", "lr": 0.003}},
    "pruning": [
        {"method": "neuron", "criterion": "obs", "ratio": {"low": 0.0, "high": 0.8}},
        {"method": "layer", "ratio": {"low": 0.0, "high": 0.5}},
    ],
    "search": {"trials": 2, "sampler": "random"},
}


@pytest.mark.usefixtures("brief_latency")
def test_it_is_searched_and_exported_with_the_default_loss_and_metric(tmp_path: Path) -> None:
    (tmp_path / "my_bert.py").write_text(TASK)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    outcome = run_search(tmp_path / "space.yaml", tmp_path / "results", load_engine("inline"))
    frame = outcome.driver.frame()
    assert frame["error"].dropna().tolist() == []
    assert set(frame["state"]) == {"finished"}
    number = int(frame["params"].astype(float).idxmin())
    result, folder, _ = export_trial(
        StudyReader(outcome.session.folder.root), str(number), formats=["safetensors", "torch"]
    )
    model = autoprune.load(folder, base_dir=tmp_path)
    assert isinstance(model, BertForSequenceClassification)
    validation = outcome.session.task.data.validation
    inputs, targets = validation.batch(torch.arange(len(validation)))
    with torch.no_grad():
        right = model(**inputs).logits.argmax(dim=1) == targets
    assert float(right.float().mean()) == pytest.approx(result.metric)
    assert sum(parameter.numel() for parameter in model.parameters()) < outcome.session.dense.cost.params
