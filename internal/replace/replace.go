// Package replace writes files whole or not at all.
package replace

import (
	"os"
	"path/filepath"
)

// File puts text in the place of what is at path, if anything. Whatever stops it,
// the older file is there or the new one, and nothing beside it but, where the
// program is killed, a hidden file of the same name and digits. The new file is
// private (0600); ready, which may be nil, is called before it takes the other's
// place: to make it look otherwise, or to call it off.
func File(path string, text []byte, ready func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if ready != nil {
		if err := ready(f); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
