"""Stages that change weights: losses (a pure function an equation), one loop, and a thin file a stage."""
