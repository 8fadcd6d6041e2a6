from .stable_dino import StableDINO

__all__ = ['StableDINO']
