"""Postbox Recovery: several agents, one folder of JSON files, nothing lost.

The public Python surface is `file_lock` (locks and transactions); this package is what stands behind it and
behind the scripts in `bin/`.  Importing it costs nothing on purpose: the main job starts it once per task.
"""

__version__ = "0.1.0"
