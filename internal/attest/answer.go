package attest

import (
	"bytes"
	"encoding/json"
	"strings"
)

// A build is what the API answers, as far as it counts: "Get a build" of Buildkite's
// REST API documentation, and what its real answers have beside that, tag and
// triggered_from. null and nothing are the same.
type build struct {
	ID       string `json:"id"`
	Number   int    `json:"number"`
	URL      string `json:"url"`
	Commit   string `json:"commit"`
	Branch   string `json:"branch"`
	Source   string `json:"source"`
	Pipeline struct {
		Slug       string `json:"slug"`
		Repository string `json:"repository"`
	} `json:"pipeline"`
	// Tag is empty where there is none, and where a server does not say. Then a
	// tag's build is withheld, since its job says so (trust, row 9); any other
	// build's facts are the same either way.
	Tag         string `json:"tag"`
	PullRequest struct {
		ID         number `json:"id"`
		Base       string `json:"base"`
		Repository string `json:"repository"`
	} `json:"pull_request"`
	TriggeredFrom struct {
		ID       string `json:"build_id"`
		Number   int    `json:"build_number"`
		Pipeline string `json:"build_pipeline_slug"`
	} `json:"triggered_from"`
	RebuiltFrom struct {
		ID     string `json:"id"`
		Number int    `json:"number"`
		URL    string `json:"url"`
	} `json:"rebuilt_from"`
	Jobs jobs `json:"jobs"`
}

// size is how much of it is text.
func (b build) size() (bytes int) {
	for _, text := range []string{
		b.ID, b.URL, b.Commit, b.Branch, b.Source, b.Pipeline.Slug, b.Pipeline.Repository, b.Tag,
		string(b.PullRequest.ID), b.PullRequest.Base, b.PullRequest.Repository,
		b.TriggeredFrom.ID, b.TriggeredFrom.Pipeline, b.RebuiltFrom.ID, b.RebuiltFrom.URL, b.Jobs.state,
	} {
		bytes += len(text)
	}
	return bytes
}

// A number is written as one, or as a text.
type number string

func (n *number) UnmarshalJSON(data []byte) error {
	if data[0] == '"' || string(data) == "null" {
		return json.Unmarshal(data, (*string)(n))
	}
	var digits json.Number
	err := json.Unmarshal(data, &digits)
	*n = number(digits)
	return err
}

// isNumber accepts what a pull request can have.
func isNumber(s string) bool {
	return s != "" && s[0] != '0' && len(s) <= 18 && strings.Trim(s, "0123456789") == ""
}

// jobs finds one job among as many as a build may have, and keeps no other.
type jobs struct {
	want  string // its id
	count int    // of its entries
	state string // in the last of them
}

func (j *jobs) UnmarshalJSON(data []byte) error {
	j.count, j.state = 0, ""
	if string(data) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		var entry struct {
			ID    string `json:"id"`
			State string `json:"state"`
		}
		if err := d.Decode(&entry); err != nil {
			return err
		}
		if entry.ID == j.want && j.want != "" {
			j.count, j.state = j.count+1, entry.State
		}
	}
	return nil
}
