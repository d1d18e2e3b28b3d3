"""What runs show: progress, loggers, curves, comparisons of many runs, heatmaps, attention plots and videos."""

from ctde_kit.training.reporting.attention_plot import AttentionRecord, beside_frames, plot_attention
from ctde_kit.training.reporting.comparison_figures import (
    plot_aggregates,
    plot_improvement,
    plot_profiles,
    plot_sample_efficiency,
    plot_tasks,
)
from ctde_kit.training.reporting.episode_video import record_chosen
from ctde_kit.training.reporting.hearing import HearingRecord
from ctde_kit.training.reporting.heatmap import plot_cross_play
from ctde_kit.training.reporting.interval_estimates import (
    Estimate,
    aggregate_scores,
    differences,
    interquartile_means,
    performance_profiles,
    probabilities_of_improvement,
)
from ctde_kit.training.reporting.listening import ListeningRecord
from ctde_kit.training.reporting.marl_eval_format import is_marl_eval, read_marl_eval, write_marl_eval
from ctde_kit.training.reporting.patient_logger import PatientLogger
from ctde_kit.training.reporting.plots import plot_run, shown_returns
from ctde_kit.training.reporting.run_curves import Comparison, RunCurve
from ctde_kit.training.reporting.video import write_gif
from ctde_kit.training.reporting.video_grid import side_by_side, write_video

__all__ = [
    "AttentionRecord",
    "Comparison",
    "Estimate",
    "HearingRecord",
    "ListeningRecord",
    "PatientLogger",
    "RunCurve",
    "aggregate_scores",
    "beside_frames",
    "differences",
    "interquartile_means",
    "is_marl_eval",
    "performance_profiles",
    "plot_aggregates",
    "plot_attention",
    "plot_cross_play",
    "plot_improvement",
    "plot_profiles",
    "plot_run",
    "plot_sample_efficiency",
    "plot_tasks",
    "probabilities_of_improvement",
    "read_marl_eval",
    "record_chosen",
    "shown_returns",
    "side_by_side",
    "write_gif",
    "write_marl_eval",
    "write_video",
]
