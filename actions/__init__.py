"""Rasa's custom actions. The action server imports every module here: nothing but actions."""
