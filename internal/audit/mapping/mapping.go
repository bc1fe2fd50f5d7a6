// Package mapping writes the map of pipelines to repositories into the operator's
// file, and leaves every other byte alone.
package mapping

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// ErrLayout says that a file is laid out in a way that is not edited.
var ErrLayout = errors.New("pipelines: is laid out in a way that can't be edited safely here")

const section = "pipelines"

// Section is the whole section with these entries, sorted by their slugs.
func Section(entries map[string]repo.Name) string {
	return section + ":\n" + lines(entries, slices.Sorted(maps.Keys(entries)), "  ", "\n")
}

func lines(entries map[string]repo.Name, slugs []string, indent, end string) string {
	var b strings.Builder
	for _, slug := range slugs {
		b.WriteString(indent + slug + ": " + entries[slug].String() + end)
	}
	return b.String()
}

// Add returns the file with those entries under pipelines: that it lacks, and which
// these are. An entry that is there stays, whatever it says: it is the operator's
// word, against which a pipeline's settings are held. The file may be empty, or
// hold that section alone. The error is a *strict.Error, or wraps ErrLayout.
//
// Keys are organization/pipeline, both slugs.
func Add(file []byte, entries map[string]repo.Name) (edited []byte, added []string, err error) {
	if len(bytes.Trim(file, "\n")) == 0 {
		return append(bytes.Clone(file), Section(entries)...), slices.Sorted(maps.Keys(entries)), nil
	}
	if _, err := strict.Parse(file, ""); err != nil {
		return nil, nil, err
	}
	before, there, err := content(file)
	if err != nil {
		return nil, nil, err
	}
	for _, slug := range slices.Sorted(maps.Keys(entries)) {
		if _, ok := there[slug]; !ok {
			added = append(added, slug)
			there[slug] = entries[slug].String()
		}
	}
	if len(added) == 0 {
		return file, nil, nil
	}
	at, indent, err := place(file)
	if err != nil {
		return nil, nil, err
	}
	end := "\n"
	if bytes.Contains(file, []byte("\r\n")) {
		end = "\r\n"
	}
	text := lines(entries, added, indent, end)
	if indent == "" { // there is none
		text = section + ":" + end + lines(entries, added, "  ", end)
	}
	if at > 0 && file[at-1] != '\n' {
		text = end + text
	}
	edited = slices.Concat(file[:at], []byte(text), file[at:])
	if err := verify(file, edited, before, there); err != nil {
		return nil, nil, err
	}
	return edited, added, nil
}

// content is what a file says: everything but the section, and the section.
func content(file []byte) (rest map[string]any, entries map[string]string, err error) {
	if err := yaml.Unmarshal(file, &rest); err != nil || rest == nil {
		return nil, nil, ErrLayout
	}
	var of struct {
		Pipelines map[string]string `yaml:"pipelines"`
	}
	if err := yaml.Unmarshal(file, &of); err != nil {
		return nil, nil, ErrLayout
	}
	delete(rest, section)
	if of.Pipelines == nil {
		of.Pipelines = map[string]string{}
	}
	return rest, of.Pipelines, nil
}

// verify reads the edited file: it says what was meant, and is no worse than before.
func verify(file, edited []byte, rest map[string]any, entries map[string]string) error {
	again, now, err := content(edited)
	if err != nil || !reflect.DeepEqual(again, rest) || !maps.Equal(now, entries) {
		return ErrLayout
	}
	if _, err := settings.Parse(file); err == nil {
		_, err = settings.Parse(edited)
		return err
	}
	_, err = strict.Parse(edited, "")
	return err
}

// place is where lines go, and their indentation; none where there is no section,
// which belongs at the file's end.
func place(file []byte) (at int, indent string, err error) {
	var document yaml.Node
	if err := yaml.Unmarshal(file, &document); err != nil || len(document.Content) == 0 {
		return 0, "", ErrLayout
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return 0, "", ErrLayout
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Value != section {
			continue
		}
		switch {
		case value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && len(value.Content) > 0:
			first, last := value.Content[0], value.Content[len(value.Content)-1]
			return behind(file, last.Line), strings.Repeat(" ", first.Column-1), nil
		case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null" && value.Value == "":
			return behind(file, key.Line), "  ", nil
		}
		return 0, "", ErrLayout
	}
	return len(file), "", nil
}

// behind is the offset behind a line, from 1, and its break.
func behind(file []byte, line int) int {
	at := 0
	for range line {
		next := bytes.IndexByte(file[at:], '\n')
		if next < 0 {
			return len(file)
		}
		at += next + 1
	}
	return at
}

// maxFile is more than strict reads, so that it refuses it.
const maxFile = strict.MaxFile + 1

// Write adds entries to a file, whole or not at all, or makes the file. added are
// the slugs that it did not have. Besides Add's, the errors are those of files.
func Write(path string, entries map[string]repo.Name) (added []string, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return slices.Sorted(maps.Keys(entries)), create(path, []byte(Section(entries)))
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &fs.PathError{Op: "edit", Path: path, Err: errors.New("not a configuration's file")}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	edited, added, err := Add(file, entries)
	if err != nil || len(added) == 0 {
		return nil, err
	}
	return added, pipeline.WriteFile(path, edited, file)
}

// create makes a file that nobody else has made meanwhile.
func create(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(text); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return os.Link(tmp.Name(), path)
}
