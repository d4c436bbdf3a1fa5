"""The benchmarks measure what the course teaches: checked on small data; what they measured is committed."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from helpers import models, runtime, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.notebooks import benchmark_results
from helpers.settings import pooling


@pytest.fixture
def benchmark(monkeypatch):
    """A function that imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = __import__(name)
        sys.modules.pop(name)
        return module

    return load


def test_the_last_recipe_is_the_one_of_fit(benchmark, small_run):
    recipes = benchmark("recipes")
    course, run = recipes.ladder()[recipes.COURSE], runtime.start_run("test", "movies").settings
    assert course.mean_pooling == (pooling(run) == "mean")
    assert (course.rate, course.epochs, course.batch_size, course.freeze) == (
        run.learning_rate,
        run.epochs,
        run.train_batch_size,
        run.freeze,
    )
    recipe = recipes.replace(
        course, rate=small_run.settings.learning_rate, epochs=small_run.settings.epochs, batch_size=8
    )
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    model, _ = recipes.train(recipe, small_run, splits, small_run.settings.seed)
    seed_everything(small_run.settings.seed)
    other = models.DistilBERTClass(small_run.checkpoint, 3, attention=small_run.compute.attention)
    training.freeze_lower_layers(other)
    models.add_mean_pooling(other)
    loaders = [training.make_loader(splits[name], tokenizer, small_run.settings, name == "train") for name in splits]
    training.fit(other, *loaders, small_run, training.pos_weights(label_matrix(splits["train"])))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_each_step_of_the_ladder_changes_one_thing(benchmark):
    recipes = benchmark("recipes")
    steps = list(recipes.ladder().values())
    changed = [
        sum(a != b for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
        for one, other in zip(steps, steps[1:], strict=False)
    ]
    assert changed == [3, 2, 1, 1, 1, 1, 1, 1]


def test_every_rung_trains(benchmark, small_run):
    rungs = benchmark("training")
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    loader = training.make_loader(splits["validation"], tokenizer, small_run.settings, train=False)
    rungs.ARTICLE_LENGTH = 40
    for name, rung in rungs.ladder(small_run.compute.device).items():
        if not rung.compiled:  # takes a compiler
            seconds, macro_ap, f1 = rungs.climb(rung, small_run, splits["train"], loader)
            assert seconds > 0, name
            assert 0 < macro_ap <= 1, name
            assert 0 <= f1 <= 1, name
    few = [next(iter(rungs.make_loader(rungs.Rung("longest text"), splits["train"], tokenizer, small_run.settings)))]
    few += [next(iter(training.make_loader(splits["train"], tokenizer, small_run.settings, train=True)))]
    assert few[0]["input_ids"].shape[1] >= few[1]["input_ids"].shape[1]
    assert few[0]["attention_mask"].sum(dim=1).min() < few[0]["input_ids"].shape[1]


def test_frozen_layers_computed_once_change_nothing_but_the_time(benchmark, small_run):
    rungs = benchmark("training")
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    model = models.DistilBERTClass(small_run.checkpoint, 3, attention=small_run.compute.attention)
    frozen = training.freeze_lower_layers(model)
    loader = training.make_loader(splits["train"], tokenizer, small_run.settings, train=False)
    compute = small_run.compute
    targets, before = training.validation(model, loader, compute)
    with rungs.frozen_layers_computed_once(model, loader, frozen, compute):
        same_targets, once = training.validation(model, loader, compute)
        assert not any("states" in name for name in model.state_dict())
    _, after = training.validation(model, loader, compute)
    assert np.array_equal(targets, same_targets)
    assert np.allclose(before, once, atol=1e-6)
    assert np.array_equal(before, after)


@pytest.mark.all  # takes a while
def test_the_trainer_is_measured_beside_the_loop_and_beside_the_copied_settings(benchmark, small_run):
    measured = benchmark("trainer")
    table = pd.DataFrame(measured.measure("small", small_run, times=2)).set_index("training")
    assert table["timings"].to_dict() == {measured.SOURCE: 1, measured.COURSE: 2, measured.LOOP: 2}
    assert set(table["examples"]) == {2 * len(small_run.splits["train"])}
    assert np.isfinite(table.drop(columns="dataset").astype(float)).all(axis=None)
    assert table.loc[measured.LOOP, "times the loop's"] == table.loc[measured.SOURCE, "times the source's"] == 1
    assert len(table["macro-AP"].unique()) > 1
    tokenizer = models.load_tokenizer(small_run.checkpoint)
    rows = measured.padded(small_run.splits["train"], tokenizer, 32)
    assert {len(ids) for ids in rows["input_ids"]} == {32}
    assert min(sum(mask) for mask in rows["attention_mask"]) < 32


def test_each_variant_changes_one_step_or_the_batches(benchmark):
    less, recipes = benchmark("one_step_less"), benchmark("recipes")
    course = vars(recipes.ladder()[recipes.COURSE])
    for name, change in {**less.BATCHES, **less.WITHOUT}.items():
        assert all(course[step] != value for step, value in change.items()), name
    steps = set().union(*less.WITHOUT.values())
    assert steps == set(course) - {"rate", "epochs", "batch_size", "order"}


@pytest.mark.all  # takes a while
def test_weightings_are_trained_and_undone(benchmark, small_run):
    weighting, splits = benchmark("weighting"), small_run.splits
    table = pd.concat(weighting.rows("small", small_run, {**splits, "test": splits["validation"]}, seed=1))
    assert table.groupby("weighting")["split"].count().eq(2 * len(small_run.label_names)).all()
    of = table[table["split"] == "test"].set_index(["weighting", "label"])
    for undone in ("Brier undone", "log loss undone"):
        assert of.loc[["none", "sqrt", "full", "balanced"], undone].notna().all()
        assert of.loc[["focal", "asymmetric"], undone].isna().all()
    assert np.allclose(of.loc["none", "Brier"], of.loc["none", "Brier undone"])
    assert not np.allclose(of.loc["full", "Brier"], of.loc["full", "Brier undone"])


def test_losses_that_weigh_by_the_answer(benchmark):
    weighting = benchmark("weighting")
    p, labels = torch.tensor([0.9, 0.2, 0.03]), torch.tensor([1.0, 0.0, 0.0])
    by_hand = [-(0.1**2) * np.log(0.9), -(0.2**2) * np.log(0.8), -(0.03**2) * np.log(0.97)]
    assert np.allclose(weighting.focal(p.logit(), labels), by_hand, atol=1e-6)
    by_hand = [-np.log(0.9), -(0.15**4) * np.log(0.85), 0]
    assert np.allclose(weighting.asymmetric(p.logit(), labels), by_hand, atol=1e-6)


def test_epochs_are_noted_one_by_one(benchmark, small_run):
    overfitting, splits = benchmark("overfitting"), small_run.splits
    overfitting.EPOCHS = 2
    table = pd.DataFrame(overfitting.rows(small_run, splits, 1, "all layers"))
    assert table["epoch"].tolist() == [1, 2]
    assert np.isfinite(table[["training loss", "validation loss", "macro-AP", "F1 macro"]]).all(axis=None)


@pytest.mark.parametrize("name", ["recipes", "training", "learning_curve", "intervals", "thresholds", "all_goemotions"])
def test_results_that_a_notebook_reads_name_their_date_machine_and_versions(name):
    table = benchmark_results(name)
    assert table[["date", "machine", "versions"]].notna().all(axis=None)


def test_the_committed_recipes_are_whole(benchmark):
    recipes, table = benchmark("recipes"), benchmark_results("recipes")
    steps = table[table["model"].isin(list(recipes.STEPS))]
    ladder = steps[(steps["dataset"] == "movies") & (steps["split"] == "validation")]
    assert ladder.groupby("model")["seed"].nunique().to_dict() == dict.fromkeys(recipes.STEPS, len(recipes.SEEDS))
    final = steps[steps["split"] == "test"]
    assert set(final["model"]) == {recipes.COURSE, recipes.FIRST_TOKEN}, "steps are chosen on validation alone"
    for model in (recipes.COURSE, "blend with linear SVM", recipes.FIRST_TOKEN, recipes.COURSE + ", by the Trainer"):
        part = table[(table["model"] == model) & (table["split"] == "test")]
        seeds = part.groupby("dataset")["seed"].nunique()
        assert seeds.tolist() == [len(recipes.SEEDS)] * 3, model
        assert {"movies", "comments"} <= set(seeds.index), model


def test_the_committed_thresholds_are_those_of_five_seeds(benchmark):
    table = benchmark_results("thresholds")
    rules = set(benchmark("thresholds").rules(np.eye(2, dtype=int)[[0, 1, 0]], np.full((3, 2), 0.4)))
    for _, rows in table.groupby(["dataset", "scored on"]):
        assert rows.groupby("rule")["seed"].nunique().to_dict() == dict.fromkeys(rules, 5)


def test_missing_results_say_how_to_make_them():
    with pytest.raises(FileNotFoundError, match=r"make it with python benchmarks/no_such\.py"):
        benchmark_results("no_such")
