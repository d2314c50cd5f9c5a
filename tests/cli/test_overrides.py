"""Typos on the command line are refused with the nearest name; what is right is accepted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning.cli import main, overrides
from seminmf_lightning.cli.commands import find_commands
from seminmf_lightning.cli.help import choices_of, folders_of

CONFIGS = "seminmf_lightning.configs"
COMMANDS = {name: command for name, command in find_commands().items() if command.config is not None}
PACKAGES = {name: CONFIGS + ".harvest" * (name == "harvest") for name in COMMANDS}


def leaves(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted keys of every value that is no mapping."""
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from leaves(child, f"{prefix}{key}.")
        elif key not in ("_target_", "name", "run_dir"):
            yield f"{prefix}{key}"


def typo(word: str, rng: random.Random) -> str:
    """Drop, double or replace a letter, or swap two."""
    at = rng.randrange(1, len(word)) if len(word) > 1 else 0
    kinds = [
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + "x" + word[at + 1 :],
        word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
    ]
    return rng.choice([kind for kind in kinds if kind not in (word, "")])


def typos() -> list[tuple[str, str, str]]:
    """200 times a command, an override with one typo, and the word that was meant."""
    rng = random.Random(0)
    drawn = []
    while len(drawn) < 200:
        name = rng.choice(["train", "train", *COMMANDS])
        config = COMMANDS[name].config
        assert config is not None
        cfg = overrides._compose(PACKAGES[name], config.stem, ())
        groups = choices_of(config, folders_of(config))
        names = {*cfg, *groups}
        kind = rng.choice(["key", "group", "choice"]) if groups else "key"
        if kind == "key":
            plain = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
            *path, meant = rng.choice([key for key in leaves(plain) if "storage" not in key]).split(".")
            wrong = typo(meant, rng)
            text = f"{rng.choice(['', '+', '++'])}{'.'.join([*path, wrong])}=1"
            node = OmegaConf.select(plain, ".".join(path)) if path else cfg
            clash = wrong in node
        else:
            group = rng.choice([group for group in groups if len(groups[group]) > 1])
            choice = rng.choice([choice for choice in groups[group] if choice != "null"])
            meant = group if kind == "group" else choice
            wrong = typo(meant, rng)
            text = f"{wrong}={choice}" if kind == "group" else f"{group}={wrong}"
            clash = wrong in (names if kind == "group" else groups[group])
        if not clash and len(meant) > 3:
            drawn.append((name, text, meant))
    return drawn


def test_two_hundred_typos_are_refused_with_the_nearest_name() -> None:
    for name, text, meant in typos():
        with pytest.raises(ValueError, match="unknown") as error:
            overrides.check(PACKAGES[name], COMMANDS[name].config.stem, [text])  # type: ignore[union-attr]
        message = str(error.value)
        assert text in message
        assert "did you mean" in message, (name, message)
        assert meant in message, (name, message)


@pytest.mark.parametrize("text", ["l1_penality=0.1", "+l1_penality=0.1", "++nb_concept=3", "solver=pdg"])
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_nothing_is_trained_and_no_directory_left(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    mode: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seminmf", "train", "data=synthetic", *mode, text])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "did you mean" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nb_concepts=many", "nb_concepts must be a whole number, got 'many'"),
        ("nb_concepts=8,2.5", "nb_concepts must be a whole number, got 2.5"),
        ("l1_penalty=a", "l1_penalty must be a number, got 'a'"),
        ("data.val_fraction=true", "data.val_fraction must be a number, got True"),
        ("trainer.max_epochs=ten", "trainer.max_epochs must be a whole number"),
        ("trainer.enable_progress_bar=maybe", "enable_progress_bar must be true or false"),
        ("+callbacks.mine.seconds=3", "unknown key of callbacks: 'mine'"),
        ("encoder.nonzeros=3", "unknown key of encoder: 'nonzeros'"),
        ("hydra.rum.dir=there", "did you mean 'run'"),
        ("hydra/launchr=basic", "did you mean 'hydra/launcher'"),
        ("+harvest=harvest", "unknown group 'harvest'"),
        ("solver=hals,pdg", "did you mean 'pgd'"),
    ],
)
def test_wrong_types_and_names_are_refused(text: str, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        overrides.check(CONFIGS, "train", [text])
    assert words in str(error.value)


@pytest.mark.parametrize(
    "texts",
    [
        ["solver=pgd", "solver.inner_steps=3", "l1_penalty=0", "trainer.devices=auto", "trainer.devices=2"],
        ["+trainer.limit_test_batches=1", "~callbacks.gallery", "~experiment"],
        ["+callbacks.mine._target_=x.Mine", "+callbacks.mine.seconds=3"],
        ["data=object_store", "data.path=s3://b/x.npy", "+data.storage.key_file=x"],
        ["hparams_search=optuna", "l1_penalty=interval(0.02,0.2)", "hydra.sweeper.n_trials=3"],
        ["launcher=submitit_slurm", "hydra.launcher.partition=gpus", "l1_penalty=0,0.1"],
        [
            "data=harvest",
            "harvest/model@data.model=minilm",
            "data.inputs.path=x",
            "data.layers=[encoder.layer.2]",
        ],
        ["experiment=minilm_pydoc_live", "data.limit=6", "ckpt_path=auto", "hydra.run.dir=x"],
        ["data.path=${oc.env:HOME}/x.npy", "data=npy", "nb_concepts=${seed}"],
    ],
)
def test_what_is_right_is_accepted(texts: list[str]) -> None:
    overrides.check(CONFIGS, "train", texts)


def test_configs_of_the_user_are_choices_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nnb_concepts: 7\n")
    overrides.check(CONFIGS, "train", ["experiment=mine", "nb_concepts=3"], str(tmp_path))
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        overrides.check(CONFIGS, "train", ["experiment=mien"], str(tmp_path))


def test_a_plugin_that_is_missing_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def without_plugin(package: str, name: str, chosen: tuple[str, ...]) -> DictConfig:
        if any("launcher" in text for text in chosen):
            raise MissingConfigException("Could not find 'hydra/launcher/submitit_local'", "x")
        return compose(package, name, chosen)

    compose = overrides._compose
    monkeypatch.setattr(overrides, "_compose", without_plugin)
    monkeypatch.setattr("sys.argv", ["seminmf", "train", "-m", "launcher=submitit_local"])
    with pytest.raises(SystemExit):
        main.main()
    assert "it needs: pip install 'seminmf-lightning[slurm]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["r u[n] 1", "2031", "a,b", "it's", "null", "7e2", "q\\'q", "a=b", "(x)", "true", "ü"]
)
def test_a_path_that_exists_is_taken_as_it_is_typed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = overrides.OverridesParser.create()
    before = overrides.quote_path(f"data.path={name}")
    (tmp_path / name).mkdir()
    assert before == f"data.path={name}"
    for key in ("run", "data.path"):
        override = parser.parse_override(overrides.quote_path(f"{key}={name}"))
        assert override.value() == name and not override.is_sweep_override()
    assert overrides.quote_path(f"nb_concepts={name}") == f"nb_concepts={name}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.path=a [b", r"data\.path=a \[b: .*quotes inside those of the shell: \"data\.path='\.\.\.'\""),
        ("solver=null", r"solver=null: choose one of hals, ksvd, mu, pgd"),
    ],
)
def test_values_that_cannot_be_read_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overrides.check(CONFIGS, "train", [text])


def test_options_of_a_model_take_any_key_that_is_appended() -> None:
    name, choice = COMMANDS["harvest"].config.stem, ["model=timm", "inputs=images", "layers=[blocks.1]"]
    required = ["model.path=vit", "inputs.path=images", "output=store"]
    overrides.check(PACKAGES["harvest"], name, [*choice, *required, "+model.options.img_size=128"])
    with pytest.raises(ValueError, match=r"appended with \+: \+model\.options\.img_size=128"):
        overrides.check(PACKAGES["harvest"], name, [*choice, *required, "model.options.img_size=128"])
    with pytest.raises(ValueError, match="unknown key of model"):
        overrides.check(PACKAGES["harvest"], name, [*choice, *required, "+model.optoins=3"])


@pytest.mark.parametrize(
    "text",
    ["one, two", 'it\'s [a] "b"', "costs ${x}", "back\\", "a\\'b", "true", "12", "{a: b}", '"A" he said'],
)
@pytest.mark.parametrize("key", ["text", "prompt"])
def test_a_text_arrives_as_it_was_typed(key: str, text: str) -> None:
    quoted = overrides._parse(overrides.quote_path(f"{key}={text}"))
    assert OmegaConf.create({key: quoted.value()})[key] == text
    assert overrides.quote_path(f"{key}='{text[:1]}, b'") == f"{key}='{text[:1]}, b'"  # quoted already
