// Package replace writes files whole or not at all.
package replace

import (
	"errors"
	"os"
	"path/filepath"
)

// File puts text in the place of what is at path, if anything. Whatever stops it,
// the older file is there or the new one, and nothing beside it but, where the
// program is killed, a hidden file of the same name and digits. The new file is
// private (0600); ready, which may be nil, is called before it takes the other's
// place: to make it look otherwise, or to call it off.
func File(path string, text []byte, ready func(*os.File) error) error {
	return put(path, text, ready, os.Rename)
}

// New is File where nothing is yet, and private. What is there stays, and the error
// wraps fs.ErrExist.
func New(path string, text []byte) error {
	err := put(path, text, nil, func(hidden, path string) error {
		if err := os.Link(hidden, path); err != nil {
			return err
		}
		if err := os.Remove(hidden); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		return nil
	})
	if err != nil {
		return err
	}
	// So that it outlasts a power cut; not every file system can say that it does.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync()
		dir.Close()
	}
	return nil
}

func put(path string, text []byte, ready func(*os.File) error, into func(hidden, path string) error) (err error) {
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
	return into(f.Name(), path)
}
