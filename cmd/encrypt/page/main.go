// Page builds the page to seal in: encrypt as WebAssembly, in one HTML file that
// loads nothing.
//
//	go run ./cmd/encrypt/page [-recipients FILE] -o build/encrypt.html
//
// The same Go release makes the same file of the same sources.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed page.html
var page string

//go:embed page.css
var style string

//go:embed page.js
var script string

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stderr)) }

// run is the whole program. Its status is 0 when the page was written, 1 when it
// could not be, 2 when the arguments make no sense.
func run(args, env []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("page", flag.ContinueOnError)
	fs.SetOutput(stderr)
	out := fs.String("o", "build/encrypt.html", "write the page to this `file`")
	recipients := fs.String("recipients", "", "build in the recipients of this `file`, instead of cmd/encrypt/recipients.txt")
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		return 2
	}
	html, err := build(*recipients, env)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(*out), 0o755)
	}
	if err == nil {
		err = os.WriteFile(*out, html, 0o644)
	}
	if err != nil {
		fmt.Fprintln(stderr, "page: error:", err)
		return 1
	}
	fmt.Fprintf(stderr, "page: %s: %.1f MB\n", *out, float64(len(html))/1e6)
	return 0
}

// build returns the page; recipients is a file, or empty.
func build(recipients string, env []string) ([]byte, error) {
	root, err := goTool(env, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	runtime, err := os.ReadFile(filepath.Join(strings.TrimSpace(root), "lib", "wasm", "wasm_exec.js"))
	if err != nil {
		return nil, err
	}
	program, err := compile(recipients, env)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(program); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return assemble(string(runtime), base64.StdEncoding.EncodeToString(packed.Bytes()))
}

// compile builds encrypt for the browser.
func compile(recipients string, env []string) ([]byte, error) {
	const pkg = "github.com/juliagpu/secrets-buildkite-plugin/cmd/encrypt"
	temp, err := os.MkdirTemp("", "page-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	program := filepath.Join(temp, "encrypt.wasm")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program}
	if recipients != "" {
		overlay, err := overlay(temp, pkg, recipients, env)
		if err != nil {
			return nil, err
		}
		args = append(args, "-overlay", overlay)
	}
	if _, err := goTool(append(env, "GOOS=js", "GOARCH=wasm", "GOFLAGS=", "GOWASM="), append(args, pkg)...); err != nil {
		return nil, err
	}
	return os.ReadFile(program)
}

// overlay writes the file that has the compiler read recipients in place of the
// package's own.
func overlay(temp, pkg, recipients string, env []string) (string, error) {
	dir, err := goTool(env, "list", "-f", "{{.Dir}}", pkg)
	if err != nil {
		return "", err
	}
	recipients, err = filepath.Abs(recipients)
	if err != nil {
		return "", err
	}
	embedded := filepath.Join(strings.TrimSpace(dir), "recipients.txt")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{embedded: recipients}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(temp, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

func goTool(env []string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, &stderr)
	}
	return string(out), nil
}

// assemble puts the page together. The policy lets these scripts and this style
// run, and nothing be loaded or sent (Content Security Policy Level 3): there is
// no connect-src, img-src or any other source beside them.
func assemble(runtime, program string) ([]byte, error) {
	for name, text := range map[string]string{"wasm_exec.js": runtime, "page.js": script, "page.css": style} {
		if strings.Contains(text, "</s") || strings.Contains(text, "<!--") || strings.Contains(text, "\r") {
			return nil, fmt.Errorf("%s: it would end its element early, or hash to something else", name)
		}
	}
	t, err := template.New("page.html").Parse(page)
	if err != nil {
		return nil, err
	}
	var html bytes.Buffer
	err = t.Execute(&html, map[string]string{
		"Policy": fmt.Sprintf("default-src 'none'; script-src %s %s 'wasm-unsafe-eval'; style-src %s; base-uri 'none'; form-action 'none'",
			hash(runtime), hash(script), hash(style)),
		"Style": style, "Program": program, "Runtime": runtime, "Script": script,
	})
	return html.Bytes(), err
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
