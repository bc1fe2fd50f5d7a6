package audit

// A Severity says how bad a finding is.
type Severity int

const (
	Info   Severity = iota + 1 // to know
	Warn                       // something does not work, or rests on less than it could
	Danger                     // a fork or a stranger could use it
)

var severities = [...]string{"", "info", "warn", "danger"}

func (s Severity) String() string { return severities[s] }

// MarshalText is String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A kind of finding. Its ID is for ever: people filter by it, and
// docs/operators.md has the same table.
type kind struct {
	id       string
	severity Severity
	title    string
	why, fix string
}

// kinds are all there are, in the order of a report.
var kinds = []kind{
	{"fork.claims", Danger, "forks are built, and a job's own claim is all that says which repository a build is of",
		"a fork's pipeline may state another BUILDKITE_REPO, and what is sealed for the pipeline alone, for any repository or in the older form would open",
		"list what each pipeline builds under pipelines: (juliagpu audit --write-map), or turn attestation on"},
	{"fork.direct", Danger, "forks are built, and the configuration's mode is direct",
		"in direct mode the identity is within reach of a job's code, and with it every secret sealed to it",
		"mode: split on the agents that run this pipeline, or don't build forks"},
	{"map.other", Danger, "the configuration maps the pipeline to another repository than it builds",
		"code of the one repository runs in builds that count as the other's",
		"find out who changed the pipeline's repository; then correct it on Buildkite, or the line under pipelines:"},
	{"scope.allowed", Danger, "values that open in any repository, and the configuration opens them (scope-any: allow)",
		"who can build any repository on these agents copies the value into its own pipeline and reads it",
		"seal them again for their repository, then take scope-any out"},
	{"repo.credentials", Danger, "the repository's address holds a password or token",
		"each job sees the address in BUILDKITE_REPO, a fork's too",
		"revoke it, and let agents check out with a key or the GitHub App"},
	{"sealed.plain", Danger, "a SECRET_ variable that is no sealed value",
		"whoever reads the pipeline, and each of its jobs, reads the value",
		"if it is a secret: revoke it, and seal a new one with encrypt"},

	{"fork.unattested", Warn, "forks are built, and that a build is a fork's is Buildkite's word, unchecked",
		"without attestation the facts of a build are those that its job states",
		"turn attestation on (attest: in config.yml)"},
	{"fork.prefix", Warn, "forks are built, and their branches have the names of your own",
		"a fork's commit that somebody builds by hand looks like one of your branch; with a prefix (user:branch) it never gets secrets",
		"Prefix third-party fork branch names, in the pipeline's GitHub settings"},
	{"fork.rebuild", Warn, "forks are built, may be rebuilt, and nobody asks what a rebuild repeats",
		"without attestation a rebuild is judged by what its own job states",
		"turn attestation on, or take Allow rebuilds away"},
	{"start.fork", Warn, "a build starts whenever anybody forks the repository",
		"strangers choose when it runs; its event is none that may have secrets, unless attested",
		"trigger builds after pushing code, in the pipeline's GitHub settings"},
	{"map.none", Warn, "no configuration that says what each pipeline builds",
		"whoever can push to one repository can claim to build another: BUILDKITE_REPO can be set by a pipeline",
		"juliagpu audit --write-map FILE writes it"},
	{"map.missing", Warn, "not under the configuration's pipelines:, which is complete where it is there",
		"builds of this pipeline get no secrets",
		"juliagpu audit --write-map FILE adds it; leave it out where it should have none"},
	{"map.stale", Warn, "under the configuration's pipelines:, and no such pipeline",
		"who may make pipelines can make one of this name, and its builds count as the repository's",
		"take the line out"},
	{"repo.unnamed", Warn, "the repository's address has no name that could be compared",
		"builds of this pipeline get no secrets, and the map can't hold it",
		"an address on a forge: https://, ssh:// or git@host:owner/name"},
	{"trigger.cross", Warn, "a step starts a pipeline of another repository, which the configuration does not list as trusted",
		"the started build gets no secrets",
		"if each may have the other's secrets: {from: …, to: …} under triggers:, with attestation"},
	{"steps.unread", Warn, "its steps can't be read",
		"what is sealed there is not known",
		"correct the file; a template is read once it is a pipeline"},
	{"sealed.unlabelled", Warn, "an age file without a label",
		"it has no name and no scope: it opens nowhere, or everywhere that the operator allows any repository",
		"seal it again with encrypt"},
	{"sealed.any", Warn, "sealed for any repository (scope: any)",
		"where the operator allows that, it opens in every repository, forks of others included",
		"seal it again for its repository"},
	{"sealed.older", Warn, "in the older RSA form, which names neither variable nor repository",
		"this version opens none; an agent with the older hook opens it in any repository",
		"seal it again with encrypt"},
	{"sealed.malformed", Warn, "begins like a sealed value and is none",
		"agents refuse it, and the jobs that have it fail",
		"copy the whole line that encrypt printed, or seal it again"},
	{"sealed.name", Warn, "for a variable that no sealed value may set",
		"agents refuse it, and the jobs that have it fail",
		"choose another name, and seal it again"},
	{"sealed.renamed", Warn, "under another name than it was sealed as",
		"agents refuse it, and the jobs that have it fail",
		"rename the variable back, or seal the value again"},
	{"sealed.repository", Warn, "sealed for another repository than the one it stands in",
		"agents refuse it, and the jobs that have it fail",
		"seal it again in a checkout of this repository"},
	{"sealed.pipeline", Warn, "sealed for another pipeline than those that build this repository",
		"agents withhold it",
		"seal it again for this pipeline, or take it out"},
	{"sealed.expired", Warn, "expired",
		"agents withhold it",
		"seal it again with a later --expires"},
	{"sealed.expiring", Warn, "expires within 30 days",
		"agents withhold it from then on",
		"seal it again with a later --expires"},
	{"sealed.unfamiliar", Warn, "sealed to none of the given recipients",
		"the agents that hold those can't open it",
		"seal it again with the recipient of today"},
	{"sealed.stranger", Warn, "sealed to somebody else, too",
		"whoever holds that identity reads the value",
		"ask who that is; if nobody knows, revoke the value and seal a new one"},
	{"sealed.miscounted", Warn, "for more or fewer recipients than its label names",
		"encrypt never writes such a file: somebody who is not named may open it",
		"revoke the value, and seal a new one with encrypt"},
	{"sealed.twice", Warn, "two values that set one variable of a job",
		"agents refuse both, and the jobs that have them fail",
		"keep one"},
	{"sealed.upload", Warn, "for a step that only uploads a pipeline",
		"such a step gets none, unless its entry of the plugin lists it; then $NAME in the file would be replaced by the value, and stored",
		"put it into the env: of the step that needs it"},

	{"logs.public", Info, "public, with sealed values: anyone reads its logs",
		"a value printed in a form that no mask knows is published",
		"print no secrets; docs/authors.md says what is not masked"},
	{"repo.twice", Info, "several pipelines build one repository",
		"a value sealed for the repository opens in each of them",
		"encrypt --pipeline, where one alone should have it"},
	{"trigger.listed", Info, "a step starts a pipeline of another repository, which the configuration lists as trusted",
		"whoever can push to the one repository causes builds with the other's secrets; it counts once facts are attested",
		"nothing, if that is meant"},
	{"trigger.unknown", Info, "a step starts a pipeline that is not known here",
		"whether it builds another repository can't be told",
		"nothing, or --organization, and a name instead of a variable"},
	{"steps.elsewhere", Info, "its steps are uploaded by a build, and no checkout was given",
		"what is sealed there was not looked at",
		"--checkout DIR, or --checkouts DIR for a folder of clones"},
}
