"""The program that ``ctde export`` writes beside the files: how to run them without this package."""

ONNX = '''\
"""Runs an exported policy with numpy and onnxruntime alone; model.json says what goes in and out."""
import json
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(__file__).parent
MODEL = json.loads((FOLDER / "model.json").read_text())["models"][0]
SESSION = onnxruntime.InferenceSession(FOLDER / MODEL["file"])
memory = {}  # empty it when an episode starts


def act(**inputs):
    """The actions of a batch of agents: act(observation=array of [batch, features])."""
    for port in MODEL["inputs"]:
        if port["carried_from"]:
            start = np.zeros((len(inputs["observation"]), *port["shape"][1:]), port["dtype"])
            inputs[port["name"]] = memory.get(port["carried_from"], start)
    names = [port["name"] for port in MODEL["outputs"]]
    memory.update(zip(names, SESSION.run(names, inputs)))
    return memory["action"]


if __name__ == "__main__":
    ports = [port for port in MODEL["inputs"] if not port["carried_from"]]
    print(act(**{port["name"]: np.ones((2, *port["shape"][1:]), port["dtype"]) for port in ports}))
'''

PT2 = '''\
"""Runs an exported policy with torch alone; model.json says what goes in and out."""
import json
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
MODEL = json.loads((FOLDER / "model.json").read_text())["models"][0]
POLICY = torch.export.load(FOLDER / MODEL["file"]).module()
memory = {}  # empty it when an episode starts


def act(**inputs):
    """The actions of a batch of agents: act(observation=tensor of [batch, features])."""
    for port in MODEL["inputs"]:
        if port["carried_from"]:
            start = torch.zeros(len(inputs["observation"]), *port["shape"][1:], dtype=getattr(torch, port["dtype"]))
            inputs[port["name"]] = memory.get(port["carried_from"], start)
    names = [port["name"] for port in MODEL["outputs"]]
    memory.update(zip(names, POLICY(*[inputs[port["name"]] for port in MODEL["inputs"]])))
    return memory["action"]


if __name__ == "__main__":
    ports = [port for port in MODEL["inputs"] if not port["carried_from"]]
    print(act(**{p["name"]: torch.ones(2, *p["shape"][1:], dtype=getattr(torch, p["dtype"])) for p in ports}))
'''
EXAMPLES = {"onnx": ONNX, "pt2": PT2}
