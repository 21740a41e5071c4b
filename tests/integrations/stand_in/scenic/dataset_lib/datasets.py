"""Names of data sets."""


class DatasetRegistry:
  _known = {}

  @classmethod
  def add(cls, name, builder):
    if name in cls._known:
      raise KeyError(name)
    cls._known[name] = builder

  @classmethod
  def get(cls, name):
    return cls._known[name]

  @classmethod
  def list(cls):
    return list(cls._known)
