"""The learning runs whose results the docs report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Experiment:
    """One command, several seeds.

    Args:
        recipe: the name of the command, without `ctde-`.
        overrides: of the command line, seed apart.
        figure: the metric that is reported, of ``summary.json``.
        bar: what every seed must reach; ``above`` says in which direction.
        early: ``(frames, bar)`` of an evaluation on the way.
        sustained: ``(share, bar)`` of every evaluation in the last share of the frames.
        reference: ``(frames, return)`` of another library's training episodes, with ``reference_name``.
        horizontals: names and values to draw as lines.
        ylabel: of the plot.
        page: under docs or docs/recipes, where the result goes.
        plotted: as a section with a plot; else as a row of a table.
    """

    recipe: str
    overrides: list[str]
    figure: str
    bar: float
    above: bool = True
    early: tuple[int, float] | None = None
    sustained: tuple[float, float] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    reference_name: str = ""
    reference: list[tuple[int, float]] = field(default_factory=list)
    horizontals: dict[str, float] = field(default_factory=dict)
    ylabel: str = "greedy episode return, mean over agents"
    page: str = "mappo"
    plotted: bool = True


def _points(text: str) -> list[tuple[int, float]]:
    pairs = (item.split() for item in text.split(","))
    return [(int(frames) * 1000, float(value)) for frames, value in pairs]


# Uniform exploration throughout, as in the QMIX paper's two-step game.
MATRIX = [
    "frames_per_batch=400",
    "updates_per_frame=0.15",
    "actor.num_cells=[64]",
    "actor.activation=relu",
    "actor.agent_id=true",
    "replay.capacity=10000",
    "replay.batch_size=64",
    "target.tau=0.05",
    "gamma=0.99",
    "anneal_lr=true",
    "value_loss=l2",
    "max_grad_norm=10",
    "epsilon_end=1.0",
]
TWO_STEP = ["task=matrix/two_step", *MATRIX, "total_frames=6400", "lr=0.005"]
CLIMBING = ["task=matrix/climbing", *MATRIX, "total_frames=10000", "lr=0.003"]
COMA_GAME = [
    "actor.num_cells=[64]",
    "actor.agent_id=true",
    "critic.network.num_cells=[64]",
    "frames_per_batch=160",
    "total_frames=20000",
    "epsilon_frames=10000",
    "lr=0.005",
]
COMA_TWO_STEP = ["task=matrix/two_step", *COMA_GAME]
COMA_PENALTY = ["task=matrix/penalty", *COMA_GAME]
FIVE_SEEDS = (0, 1, 2, 3, 4)

# The commands as typed, with the seeds of `ctde benchmark benchmark=vmas_small`, whose runs these are.
PLAIN_NAVIGATION = ["task=vmas/navigation", "total_frames=300000", "evaluation.absolute=true"]
REPORTED_SEEDS = (100, 101, 102, 103, 104)
NAVIGATION = [
    "task=vmas/navigation",
    "total_frames=300000",
    "evaluation.every_frames=30000",
    "evaluation.episodes=500",
]

# MADDPG's defaults when the experiments that name them were run.
EARLIER_MADDPG = ["gamma=0.9", "action_regularization=0"]

CHANNELS = ("bicnet", "commnet", "tarmac")

BENCHMARL_QMIX = "BenchMARL 1.5.2 QMIX, training episodes, one seed"
BENCHMARL_MADDPG = "BenchMARL 1.5.2 MADDPG, training episodes, one seed"
BENCHMARL = "BenchMARL 1.5.2 MAPPO, training episodes, one seed"


# BenchMARL's arguments; its issue 251 has MAPPO learn nothing in ten million frames.
DISPERSION = [
    "task=vmas/dispersion",
    "task.params.n_agents=4",
    "task.params.n_food=4",
    "task.params.share_reward=true",
    "task.params.food_radius=0.02",
    "task.n_envs=600",
    "frames_per_batch=60000",
    "minibatch_frames=6000",
    "epochs=15",
    "lr=0.0005",
    "entropy_coeff=0",
    "critic.heads=one",
    "actor.num_cells=[128,64]",
    "critic.network.num_cells=[128,64]",
    "total_frames=3000000",
    "evaluation.every_frames=300000",
    "evaluation.episodes=500",
    "checkpoint.every_frames=600000",
]

# A batch is 128 steps of 64 battles; a minibatch is the whole sequences of 16 of them.
BATTLE = [
    "network@actor=gru",
    "network@critic.network=gru",
    "task.n_envs=64",
    "frames_per_batch=8192",
    "minibatch_frames=2048",
    "epochs=4",
    "lr=0.002",
    "lmbda=0.95",
    "entropy_coeff=0.005",
    "total_frames=1000000",
    "evaluation.every_frames=100000",
    "evaluation.episodes=256",
    "checkpoint.metric=eval/agents/info/won_last",
]
QMIX_BATTLE = [
    "network@actor=gru",
    "actor.hidden_size=128",
    "actor.num_cells=[128]",
    "actor.agent_id=true",
    "actor.normalize=true",
    "mixer.normalize=true",
    "last_action=true",
    "task.n_envs=32",
    "frames_per_batch=1600",
    "replay=sequences",
    "replay.form.length=32",
    "replay.form.burn_in=8",
    "replay.batch_size=64",
    "replay.capacity=200000",
    "returns=td_lambda",
    "returns.lmbda=0.8",
    "gamma=0.99",
    "lr=0.0005",
    "updates_per_frame=0.02",
    "epsilon_frames=100000",
    "total_frames=500000",
    "evaluation.every_frames=50000",
    "evaluation.episodes=128",
    "checkpoint.metric=eval/agents/info/won_last",
]

# HalfCheetah as six agents of one joint each; an actor per joint.
HALF_CHEETAH = [
    "task=mamujoco/half_cheetah_6x1",
    "task.n_envs=8",
    "task.n_workers=1",
    "frames_per_batch=1000",
    "actor.num_cells=[256,256]",
    "actor.share_params=false",
    "critic.network.num_cells=[256,256]",
    "normalize_observations=true",
    "gamma=0.99",
    "target.tau=0.005",
    "replay.batch_size=256",
    "replay.capacity=1000000",
    "exploration.start=0.3",
    "exploration.end=0.1",
    "total_frames=1000000",
    "evaluation.episodes=8",
    "checkpoint.every_frames=100000",
]
HALF_CHEETAH_OPTIONS = {
    "maddpg": ["lr=0.001", "updates_per_frame=0.1", "evaluation.every_frames=100000", "action_regularization=0"],
    "facmac": [
        "critic.network.share_params=false",
        "lr=0.0005",
        "learning_starts=10000",
        "mixer.embed_dim=64",
        "updates_per_frame=0.05",
        "evaluation.every_frames=50000",
        "action_regularization=0",
    ],
}

CUE = ["task=communication/cue", "frames_per_batch=1200", "total_frames=30000", "evaluation.episodes=500"]
CUE_OPTIONS = {
    "mappo": [],
    "qmix": ["updates_per_frame=0.04", "lr=0.001", "target.tau=0.02", "epsilon_frames=15000", "anneal_lr=false"],
}


def _cue(recipe: str, network: str) -> Experiment:
    """The cue game: 1 is the best return; with four goals, chance is 0.25."""
    sizes = ["actor.hidden_size=64", "actor.num_cells=[64]"] if network != "mlp" else ["actor.num_cells=[64,64]"]
    return Experiment(
        recipe,
        [*CUE, f"network@actor={network}", *sizes, *CUE_OPTIONS[recipe]],
        "eval/return_mean",
        0.95 if network != "mlp" else 0.32,
        above=network != "mlp",
        horizontals={"chance": 0.25},
        page="communication",
        plotted=False,
    )


EXPERIMENTS: dict[str, Experiment] = {
    **{f"{recipe}_cue_{net}": _cue(recipe, net) for recipe in CUE_OPTIONS for net in ("mlp", *CHANNELS)},
    "mappo_navigation": Experiment(
        "mappo",
        PLAIN_NAVIGATION,
        "eval/return_mean",
        0.95,
        sustained=(1 / 3, 0.8),
        seeds=REPORTED_SEEDS,
        reference_name=BENCHMARL,
        reference=_points("36 .55,66 .89,96 .81,126 1.01,156 .91,186 .96,246 .94,306 .90,360 .89"),
        horizontals={"random": -0.55},
    ),
    "mappo_balance": Experiment(
        "mappo",
        ["task=vmas/balance", "total_frames=300000", "evaluation.episodes=500"],
        "eval/return_mean",
        45.0,
        reference_name=BENCHMARL,
        reference=_points("36 -2.9,66 -.8,96 10.4,126 22.4,156 25.3,186 32.9,246 40.9,306 44.5,336 46.6,360 45.0"),
        horizontals={"random": -5.8, "VMAS heuristic": 14.3},
    ),
    "happo_balance": Experiment(
        "happo",
        ["task=vmas/balance", "total_frames=300000", "evaluation.episodes=500"],
        "eval/return_mean",
        45.0,
        seeds=(100, 101, 102),
        horizontals={"random": -5.8, "VMAS heuristic": 14.3},
        page="happo",
    ),
    "mappo_dispersion": Experiment(
        "mappo",
        [*DISPERSION, "actor.agent_id=true"],
        "eval/return_mean",
        3.0,
        seeds=REPORTED_SEEDS[:3],
        horizontals={"all food": 4.0},
        page="dispersion",
    ),
    "mappo_dispersion_without_id": Experiment(
        "mappo",
        DISPERSION,
        "eval/return_mean",
        3.0,
        above=False,
        seeds=REPORTED_SEEDS[:1],
        horizontals={"all food": 4.0},
        page="dispersion",
    ),
    "mappo_simple_tag": Experiment(
        "mappo",
        [
            "task=vmas/simple_tag",
            "opponents.agent=random",
            "task.n_envs=300",
            "frames_per_batch=30000",
            "minibatch_frames=3000",
            "total_frames=2000000",
            "evaluation.every_frames=200000",
            "evaluation.episodes=500",
            "checkpoint.metric=eval/adversary/return_sum",
        ],
        "eval/adversary/return_sum",
        1300.0,
        seeds=REPORTED_SEEDS[:3],
        horizontals={"random": 11.6, "scripted chase": 1190.1},
        ylabel="greedy episode return, sum over predators",
        page="competition",
    ),
    **{
        f"{recipe}_smax_{map_name}": Experiment(
            recipe,
            [f"task=smax/{map_name}", *options],
            "eval/agents/info/won_last",
            bar,
            seeds=REPORTED_SEEDS[:1],
            ylabel="share of battles won, greedy",
            page="smax",
        )
        for recipe, map_name, options, bar in (
            ("mappo", "3m", BATTLE, 0.8),
            ("mappo", "2s3z", BATTLE, 0.8),
            ("qmix", "2s3z", QMIX_BATTLE, 0.5),
        )
    },
    **{
        f"{recipe}_half_cheetah": Experiment(
            recipe,
            [*HALF_CHEETAH, *options],
            "eval/return_mean",
            1500.0,
            seeds=REPORTED_SEEDS[:1],
            ylabel="greedy episode return",
            page="half_cheetah",
        )
        for recipe, options in HALF_CHEETAH_OPTIONS.items()
    },
    "mappo_warehouse": Experiment(
        "mappo",
        [
            "task=rware/tiny_2ag",
            "task.n_envs=16",
            "task.n_workers=1",
            "frames_per_batch=8000",
            "minibatch_frames=2000",
            "epochs=4",
            "lr=0.0005",
            "actor.num_cells=[128,128]",
            "actor.agent_id=true",
            "critic.network.num_cells=[128,128]",
            "normalize_rewards=true",
            "total_frames=3000000",
            "evaluation.every_frames=250000",
            "evaluation.episodes=32",
            "checkpoint.every_frames=500000",
        ],
        "eval/return_sum",
        0.2,
        seeds=REPORTED_SEEDS[:1],
        horizontals={"random": 0.05},
        ylabel="shelves delivered per episode, greedy",
        page="warehouse",
    ),
    "mappo_simple_spread": Experiment(
        "mappo",
        [
            "task=pettingzoo/simple_spread",
            "gamma=0.95",
            "frames_per_batch=3000",
            "minibatch_frames=300",
            "actor.num_cells=[128,128]",
            "actor.agent_id=true",
            "critic.network.num_cells=[128,128]",
            "total_frames=600000",
            "evaluation.every_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        -40.0,
        horizontals={"random": -79.3, "scripted assignment": -24.5, "MAPPO of EPyMARL, 20M frames": -29.3},
        ylabel="greedy episode return, sum over agents",
    ),
    "mappo_foraging": Experiment(
        "mappo",
        [
            "task=lbf/foraging_8x8_2p_2f_coop",
            "gamma=0.98",
            "minibatch_frames=1000",
            "epochs=5",
            "actor.num_cells=[128,128]",
            "critic.network.num_cells=[128,128]",
            "total_frames=600000",
            "evaluation.every_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        0.9,
        horizontals={"random": 0.001, "all food": 1.0},
        ylabel="greedy episode return, sum over agents",
    ),
    "mappo_recall_gru": Experiment(
        "mappo",
        [
            "task=memory/recall",
            "network@actor=gru",
            "network@critic.network=gru",
            "frames_per_batch=1920",
            "minibatch_frames=480",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.95,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
    ),
    "mappo_recall_mlp": Experiment(
        "mappo",
        [
            "task=memory/recall",
            "frames_per_batch=1920",
            "minibatch_frames=480",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.32,
        above=False,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
    ),
    "qmix_navigation": Experiment(
        "qmix",
        PLAIN_NAVIGATION,
        "eval/return_mean",
        0.95,
        sustained=(1 / 3, 0.8),
        seeds=REPORTED_SEEDS,
        reference_name=BENCHMARL_QMIX,
        reference=_points("24 .15,60 .63,96 .73,114 .91,150 .87,204 .90,240 .92"),
        horizontals={"random": -0.60},
        page="qmix",
    ),
    "qmix_two_step": Experiment("qmix", TWO_STEP, "eval/return_mean", 8.0, seeds=FIVE_SEEDS, page="qmix"),
    "vdn_two_step": Experiment("vdn", TWO_STEP, "eval/return_mean", 7.0, above=False, seeds=FIVE_SEEDS, page="qmix"),
    "qplex_climbing": Experiment("qplex", CLIMBING, "eval/return_mean", 11.0, seeds=FIVE_SEEDS, page="qmix"),
    "qmix_climbing": Experiment("qmix", CLIMBING, "eval/return_mean", 7.0, above=False, seeds=FIVE_SEEDS, page="qmix"),
    "ow_qmix_climbing": Experiment(
        "qmix",
        [*CLIMBING, "weighting=optimistic", "weighting.alpha=0.01"],
        "eval/return_mean",
        11.0,
        seeds=FIVE_SEEDS,
        page="qmix",
    ),
    "cw_qmix_climbing": Experiment(
        "qmix", [*CLIMBING, "weighting=central"], "eval/return_mean", 11.0, seeds=FIVE_SEEDS, page="qmix"
    ),
    "vdn_climbing": Experiment("vdn", CLIMBING, "eval/return_mean", 7.0, above=False, seeds=FIVE_SEEDS, page="qmix"),
    "pqn_navigation": Experiment(
        "pqn",
        [
            "task=vmas/navigation",
            "task.continuous_actions=false",
            "total_frames=300000",
            "evaluation.every_frames=30000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.8,
        reference_name=BENCHMARL_QMIX,
        reference=_points("24 .15,60 .63,96 .73,114 .91,150 .87,204 .90,240 .92"),
        horizontals={"random": -0.60},
        page="qmix",
    ),
    "qmix_simple_spread": Experiment(
        "qmix",
        [
            "task=pettingzoo/simple_spread",
            "gamma=0.9",
            "frames_per_batch=3000",
            "updates_per_frame=0.03",
            "actor.num_cells=[128,128]",
            "actor.agent_id=true",
            "returns=td_lambda",
            "returns.lmbda=0.6",
            "replay=sequences",
            "replay.form.length=25",
            "replay.batch_size=32",
            "replay.capacity=150000",
            "mixer.normalize=true",
            "target=hard",
            "target.every=200",
            "epsilon_frames=60000",
            "anneal_lr=true",
            "lr=0.001",
            "compile=on",
            "total_frames=1200000",
            "evaluation.every_frames=120000",
            "checkpoint.every_frames=300000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        -35.0,
        horizontals={"random": -79.3, "scripted assignment": -24.5, "QMIX of EPyMARL": -25.8},
        ylabel="greedy episode return, sum over agents",
        page="qmix",
    ),
    "qmix_foraging": Experiment(
        "qmix",
        [
            "task=lbf/foraging_8x8_2p_2f_coop",
            "network@actor=gru",
            "actor.hidden_size=64",
            "actor.num_cells=[64]",
            "actor.agent_id=true",
            "actor.normalize=true",
            "mixer.normalize=true",
            "returns=td_lambda",
            "returns.lmbda=0.8",
            "last_action=true",
            "team_reward=sum",
            "replay=sequences",
            "replay.form.length=20",
            "replay.form.burn_in=10",
            "replay.capacity=500000",
            "gamma=0.98",
            "lr=0.0005",
            "frames_per_batch=3000",
            "updates_per_frame=0.02",
            "epsilon_frames=250000",
            "anneal_lr=true",
            "total_frames=1000000",
            "evaluation.every_frames=50000",
            "checkpoint.every_frames=500000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        0.95,
        sustained=(0.2, 0.95),
        horizontals={"random": 0.001, "all food": 1.0},
        ylabel="greedy episode return, sum over agents",
        page="qmix",
    ),
    "qmix_recall_gru": Experiment(
        "qmix",
        [
            "task=memory/recall",
            "network@actor=gru",
            "actor.hidden_size=64",
            "actor.num_cells=[64]",
            "replay=sequences",
            "replay.form.length=16",
            "replay.form.burn_in=4",
            "frames_per_batch=1920",
            "updates_per_frame=0.04",
            "target.tau=0.02",
            "lr=0.003",
            "epsilon_frames=20000",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.95,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
        page="qmix",
    ),
    "qmix_recall_mlp": Experiment(
        "qmix",
        [
            "task=memory/recall",
            "frames_per_batch=1920",
            "updates_per_frame=0.04",
            "target.tau=0.02",
            "lr=0.003",
            "epsilon_frames=20000",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.32,
        above=False,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
        page="qmix",
    ),
    "maddpg_navigation": Experiment(
        "maddpg",
        PLAIN_NAVIGATION,
        "eval/return_mean",
        0.95,
        sustained=(1 / 3, 0.8),
        seeds=REPORTED_SEEDS,
        reference_name=BENCHMARL_MADDPG,
        reference=_points("24 -2.0,42 -.07,78 .71,114 .53,150 .88,204 .90,240 .94"),
        horizontals={"random": -0.60},
        page="maddpg",
    ),
    "matd3_navigation": Experiment(
        "maddpg",
        ["preset=matd3", *NAVIGATION, *EARLIER_MADDPG],
        "eval/return_mean",
        0.95,
        horizontals={"random": -0.60},
        page="maddpg",
    ),
    "masac_navigation": Experiment(
        "masac", NAVIGATION, "eval/return_mean", 0.95, horizontals={"random": -0.60}, page="masac"
    ),
    "coma_two_step": Experiment("coma", COMA_TWO_STEP, "eval/return_mean", 8.0, seeds=FIVE_SEEDS, page="coma"),
    # A joint action of 10 is beside two of -100: what is safe is 2.
    "coma_penalty": Experiment(
        "coma", COMA_PENALTY, "eval/return_mean", 2.0, seeds=FIVE_SEEDS, page="coma", plotted=False
    ),
    "coma_foraging": Experiment(
        "coma",
        [
            "task=lbf/foraging_8x8_2p_2f_coop",
            "task.n_envs=20",
            "task.n_workers=1",
            "frames_per_batch=500",
            "team_reward=sum",
            "normalize_rewards=true",
            "entropy_coeff=0.01",
            "gamma=0.98",
            "lr=0.001",
            "actor.num_cells=[128,128]",
            "actor.agent_id=true",
            "critic.network.num_cells=[128,128]",
            "epsilon_frames=100000",
            "total_frames=1500000",
            "evaluation.every_frames=100000",
            "checkpoint.every_frames=250000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        0.5,
        seeds=(100, 101, 102),
        horizontals={"random": 0.001, "all food": 1.0},
        ylabel="greedy episode return, sum over agents",
        page="coma",
    ),
    "a2c_navigation": Experiment(
        "a2c", NAVIGATION, "eval/return_mean", 0.8, horizontals={"random": -0.60}, page="mappo"
    ),
    # 90 % of what the true target policies give.
    "maddpg_inferred": Experiment(
        "maddpg",
        [
            "task=vmas/navigation",
            "infer_policies=true",
            "total_frames=300000",
            "evaluation.every_frames=30000",
            "evaluation.episodes=500",
            *EARLIER_MADDPG,
        ],
        "eval/return_mean",
        0.9,
        horizontals={"true target policies, mean of three seeds": 1.003},
        seeds=(0,),
        page="maddpg",
    ),
    "maddpg_simple_spread": Experiment(
        "maddpg",
        [
            "task=pettingzoo/simple_spread",
            "exploration=gumbel",
            "gamma=0.9",
            "frames_per_batch=3000",
            "updates_per_frame=0.05",
            "replay.batch_size=256",
            "lr=0.001",
            "actor.num_cells=[128,128]",
            "critic.network.num_cells=[128,128]",
            "action_regularization=0.001",
            "compile=on",
            "total_frames=180000",
            "evaluation.every_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        -40.0,
        ylabel="greedy episode return, sum over agents",
        seeds=(0, 1),
        page="maddpg",
    ),
}
