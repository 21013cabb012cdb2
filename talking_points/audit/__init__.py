"""Pages on which people look at rows and judge them."""

import os
import tempfile

# NiceGUI reads what its pages have stored from the working folder, where anybody's files may lie, as it is imported.
_storage = tempfile.TemporaryDirectory(prefix="talking-points-pages-", ignore_cleanup_errors=True)
os.environ.setdefault("NICEGUI_STORAGE_PATH", _storage.name)
