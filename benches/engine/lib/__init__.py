"""The parts of the benchmark of the engine. `bench` beside this folder is the program."""
