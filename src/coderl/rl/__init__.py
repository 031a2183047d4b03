"""Reinforcement learning from execution feedback: returns, losses, and the actor's updates on its own programs."""
