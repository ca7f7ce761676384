"""Synthetic clips, and small weights trained on them.

Commands:
    python -m synthetic.compose             compose clips with exact masks, in AVSBench's layout
    python -m synthetic.train               train small weights of AudioCLIP and SAM (those in pretrained/mini)
    python -m synthetic.random_grounding    write a random CLAP and GroundingDINO, stand-ins for tests

synthetic/clips/, used by the first two:
    plan.py         which clips there are, their splits and random numbers
    sampling.py     which objects appear, when they sound, where they move; the audio mix
    scene.py        rendering of frames and of visible areas
    assets.py       the objects and backgrounds: built-in ones, or files
    sprites.py      the built-in drawings, made of shapes.py and rendered by rasterize.py
    sounds.py       the built-in sounds, made of synthesis.py

synthetic/training/, used by train:
    trainer.py      the training loop and its files
    task.py         what it needs to know of a network; audioclip_task.py and sam_task.py say it
    *_data.py       training samples (sam_prompts.py: prompts; transforms.py: what both share)
    *_training.py   network, curriculum and losses
    *_eval.py       evaluation
"""
