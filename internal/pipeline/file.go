package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
)

// ErrChanged says that a file is not what was edited: somebody else wrote it in
// between.
var ErrChanged = errors.New("changed meanwhile, so it was left alone")

// ErrOwner says that a file is somebody else's, and that the new one could not be.
var ErrOwner = errors.New("its owner could not be kept, so it was left alone")

// WriteFile puts edited in the place of a file whose content is original: whole
// or not at all, with the same owner, group and mode; a list of further rights (ACL)
// and other attributes go. A symbolic link stays and the file behind it is replaced;
// another hard link keeps the old content. It refuses what is not a regular file or
// can't be written, a file that changed, with ErrChanged, and one whose owner can't
// be kept, with ErrOwner.
func WriteFile(path string, edited, original []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return WriteIn(folder, filepath.Base(path), edited, original)
}

// WriteIn is WriteFile for a path in a folder, and a link is no regular file to it.
// Nothing leads out of the folder, whatever became of those in it since the file was
// read.
func WriteIn(folder *os.Root, path string, edited, original []byte) error {
	info, err := writable(folder, path)
	if err != nil {
		return err
	}
	return replace.In(folder, path, edited, func(f *os.File) error {
		if err := keepOwner(f, info); err != nil {
			return err
		}
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		// Last, so that little time is left for another change.
		now, err := folder.ReadFile(path)
		if err == nil && !bytes.Equal(now, original) {
			err = fmt.Errorf("%s: %w", escape.Text(path), ErrChanged)
		}
		return err
	})
}

// Writable tells, without a change, whether WriteIn may write a file and its folder.
func Writable(folder *os.Root, path string) error {
	if _, err := writable(folder, path); err != nil {
		return err
	}
	return writableFolder(folder, filepath.Dir(path))
}

func writable(folder *os.Root, path string) (os.FileInfo, error) {
	info, err := folder.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", escape.Text(path))
	}
	// A rename would replace a file that nobody may write.
	f, err := folder.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return info, f.Close()
}
