"""The stages of the pipeline, one command each. Every stage goes on where it was stopped."""

import asyncio
from pathlib import Path

import click

from model import evaluate, export, lists, parity, sources, tokenizer, train, words

_FILE = "tiny.q8_0.gguf"


def _needed(path: Path, stage: str) -> Path:
    if not path.exists():
        raise click.UsageError(f"there is no {path} yet; run first: python -m model.make {stage}")
    return path


@click.group()
@click.option("--build", type=click.Path(path_type=Path), default=Path("build/model"), show_default=True)
@click.pass_context
def main(context: click.Context, build: Path) -> None:
    """Make the embedded model.

    \b
    python -m model.make vocabulary
    python -m model.make train
    python -m model.make export
    python -m model.make evaluate
    """
    build.mkdir(parents=True, exist_ok=True)
    context.obj = build


@main.command()
@click.pass_obj
def vocabulary(build: Path) -> None:
    """Fetch the sources (about 220 MB), make word meanings and the tokenizer. About three minutes."""
    for source in sources.ALL:  # Now, for the workers of a training would fetch them at the same time.
        sources.unpacked(source, build / "sources")
    click.echo("word meanings and vocabulary, about three minutes")
    texts = [line for name in lists.names() if name.startswith("languages/") for line in lists.entries(name).train]
    made = tokenizer.build(words.lexicon(build).words, texts)
    made.save(str(build / "tokenizer.json"))
    click.echo(f"{made.get_vocab_size()} tokens in {build / 'tokenizer.json'}")


@main.command(name="train")
@click.option("--steps", default=3_500, show_default=True, help="Of the whole schedule.")
@click.option("--until", type=int, help="Stop at this step; the same command without it goes on.")
@click.option("--tokens", default=1_280, show_default=True, help="A quarter of what a worker reads in a step.")
@click.option("--workers", default=2, show_default=True, help="Processes with one thread each.")
@click.option("--seed", default=1, show_default=True)
@click.pass_obj
def train_(build: Path, steps: int, until: int | None, tokens: int, workers: int, seed: int) -> None:
    """Train, with a line of losses every 50 steps and a checkpoint every 250."""
    _needed(build / "tokenizer.json", "vocabulary")
    train.train(train.Plan(build, steps, tokens, seed=seed, workers=workers, until=until))
    click.echo(f"{until or steps} steps are done; next: python -m model.make export")


@main.command(name="export")
@click.option("--seed", default=1, show_default=True, help="The one that training had.")
@click.pass_obj
def export_(build: Path, seed: int) -> None:
    """Write the last checkpoint as a GGUF, and see that it answers as the checkpoint does."""
    _needed(build / "checkpoint-0.pt", "train")
    network, tokens, step = train.trained(build, seed)
    path = build / _FILE
    export.export(network, tokens, path)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB after {step} steps")
    for text, ours, theirs in parity.differences(network, tokens, path, build):
        click.echo(f"differs: {text}\n    network {ours}\n    file    {theirs}")


@main.command(name="evaluate")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Default: what `export` wrote.")
@click.option("--cases", default=500, show_default=True, help="In each generated cell.")
@click.option("--handwritten", is_flag=True, help="Also the hand-written inputs: for a finished model only.")
@click.option(
    "--mistakes", default=0, show_default=True, help="How many wrong answers of each cell to show, at most 12."
)
@click.option("--threads", default=2, show_default=True)
@click.pass_obj
def evaluate_(build: Path, weights: Path | None, cases: int, handwritten: bool, mistakes: int, threads: int) -> None:
    """Ask a GGUF every case through the embedded engine: a line for each cell, then a table for the model card."""
    _needed(build / "tokenizer.json", "vocabulary")
    weights = weights or _needed(build / _FILE, "export")
    cells = evaluate.generated(build, cases) + (evaluate.handwritten() if handwritten else [])
    scores = []
    for cell in cells:
        [score] = asyncio.run(evaluate.run(weights, [cell], threads=threads))
        parts = "".join(f", {part} {score.share(part):.1%}" for part in score.parts)
        click.echo(f"{score.name:<34} {score.right} of {score.cases} right{parts}", err=True)
        for text, wanted, said in score.mistakes[:mistakes]:
            click.echo(f"    {text}\n        wanted {wanted}\n        said   {said}", err=True)
        scores.append(score)
    click.echo(evaluate.table(scores))


if __name__ == "__main__":
    main()
