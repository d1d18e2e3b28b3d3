"""TensorDict-keyed parts for centralized training and decentralized execution, on TorchRL."""
