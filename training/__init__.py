"""How the bundled weights were made: the data step, the trainers and the evaluation."""
