//go:build !unix

package pipeline

import "os"

func keepOwner(*os.File, os.FileInfo) error { return nil }

func writableFolder(*os.Root, string) error { return nil }
