package main

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobenv"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// A connection is one to the Job API, or the reason why there is none.
type connection struct {
	*jobenv.Client
	err error
}

func connect(environ []string) connection {
	client, err := jobenv.Dial(jobenv.AddressFrom(environ))
	return connection{client, err}
}

// mask begins to mask what is open, whether it will be set or not: a text that the
// agent redacts in vain harms nobody.
func (c connection) mask(vars []envelope.Variable) {
	if c.err == nil {
		c.MaskEarly(vars)
	}
}

// deliver sets what was granted, all or nothing, and what the job sees in any case.
// It ends the connection.
func deliver(api connection, required wish.Wishes, results []unseal.Result, log *report) int {
	if api.err == nil {
		defer api.Close()
	}
	log.results = results
	granted, withheld, refused, set := unseal.AllOrNone(results)
	if refused > 0 {
		return statusRefused
	}
	names := grantedNames(results)
	if status := log.require(required.Missing(names)); status != statusGo {
		return status
	}
	plain := map[string]string{varOutcome: "none", varNames: ""}
	if withheld > 0 {
		plain[varOutcome] = "withheld"
	}
	if log.outage {
		plain[varRetry] = "1"
	}
	for _, r := range results {
		// A variable of the job's environment can't be taken back, only emptied.
		if r.Sealed() && utf8.ValidString(r.Variable) {
			plain[r.Variable] = ""
		}
	}
	if set {
		plain[varOutcome] = "granted"
		plain[varNames] = strings.Join(names, " ")
	}
	unmasked, err := send(api, results, plain)
	if err != nil && granted > 0 {
		return log.machine(err, hintAPI(err))
	}
	if err != nil && withheld > 0 {
		log.note("%s is not set, and the sealed values stay in the environment as they are: %s", varOutcome, err)
	}
	if unmasked != "" {
		log.note("not masked in the log: %s", unmasked)
	}
	return statusGo
}

// send delivers over the Job API. Where that fails, no file is left either.
func send(api connection, results []unseal.Result, plain map[string]string) (unmasked string, err error) {
	if api.err != nil {
		return "", api.err
	}
	delivery := jobenv.Delivery{Plain: plain}
	for _, r := range results {
		if r.File {
			delivery.Files = append(delivery.Files, r.Set...)
		} else {
			delivery.Secrets = append(delivery.Secrets, r.Set...)
		}
	}
	folder, err := writeFiles(api.Agent, delivery.Files, plain)
	if err == nil {
		unmasked, err = api.Deliver(delivery)
	}
	if err != nil {
		folder.Remove()
	}
	return unmasked, err
}

// writeFiles writes each value into a private file, whose path becomes the
// variable's value.
func writeFiles(agent int, files []envelope.Variable, plain map[string]string) (folder jobfile.Folder, err error) {
	if len(files) == 0 {
		return folder, nil
	}
	if folder, err = jobfile.Make(agent); err != nil {
		return folder, err
	}
	for _, f := range files {
		if plain[f.Name], err = folder.Write(f.Name, f.Value.Reveal()); err != nil {
			return folder, err
		}
	}
	return folder, nil
}

func hintAPI(err error) string {
	switch {
	case errors.Is(err, jobenv.ErrNoAPI):
		return "agents from 3.66 on have what it takes of the Job API; a pipeline must not set " + jobenv.VarNoAPI
	case errors.Is(err, jobfile.ErrWrite):
		return "a value of type file needs room in /dev/shm or /tmp"
	case errors.Is(err, jobenv.ErrNotTheAgent):
		return "nothing was sent; see who sets " + jobenv.VarSocket + " in this job"
	}
	return "run the job again; if it fails again, see the agent's log"
}

// grantedNames returns the names of all variables that are set.
func grantedNames(results []unseal.Result) []string {
	var names []string
	for _, r := range results {
		for _, v := range r.Set {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names
}
