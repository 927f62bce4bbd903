"""What holds for every ring: a property is judged by what it finds, never by how long this machine took."""

from hypothesis import settings

settings.register_profile("liferaft", deadline=None)
settings.load_profile("liferaft")
