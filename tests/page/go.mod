// The tests of the page to seal in: they drive a browser. A module of its own,
// so that their requirements never reach the project's go.mod.
module github.com/juliagpu/secrets-buildkite-plugin/tests/page

go 1.26.0

replace github.com/juliagpu/secrets-buildkite-plugin => ../..

require (
	filippo.io/age v1.3.2
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	github.com/juliagpu/secrets-buildkite-plugin v0.0.0
	github.com/stretchr/testify v1.12.1
	go.yaml.in/yaml/v3 v3.0.6
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/term v0.47.0 // indirect
)
