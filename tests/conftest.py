from hypothesis import settings

# tests assert what is right, not how soon: machines are shared
settings.register_profile("lhm-live", deadline=None)
settings.load_profile("lhm-live")
