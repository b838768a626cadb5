package result

import "time"

// Comparison is the same work done by several systems, or by two revisions of
// one, in interleaved rounds: compare.json, from which the page and the texts
// are made. Units as in [Result]; nil stands for "no sample".
type Comparison struct {
	Kind      string    `json:"kind"`   // always "comparison": tells it from a result file
	Schema    int       `json:"schema"` // [Schema]
	Scenario  string    `json:"scenario"`
	Title     string    `json:"title,omitempty"`
	Profile   string    `json:"profile"`
	Seed      uint64    `json:"seed"` // of the schedule, the same for every system, and of the order of runs
	TimeScale float64   `json:"time_scale"`
	Started   time.Time `json:"started"`
	Duration  float64   `json:"duration"`
	Complete  bool      `json:"complete"`

	// Verdict is "pass" if every gate of every system passed. Where revisions
	// are compared it is "fail" if a regression was shown, else "pass".
	Verdict    Verdict `json:"verdict"`
	Incomplete string  `json:"incomplete,omitempty"`
	Error      string  `json:"error,omitempty"` // set with verdict "error"

	Environment Environment `json:"environment"`
	Notices     []string    `json:"notices"`

	Confidence float64 `json:"confidence"` // of every two-sided interval
	Planned    int     `json:"planned"`    // rounds
	Rounds     int     `json:"rounds"`     // in which every system was measured to its end; all estimates and verdicts are from these; the plots show the broken one too

	Fairness []FairnessCheck  `json:"fairness"`
	Systems  []ComparedSystem `json:"systems"` // as they were named; the first is what the others are compared with
	Metrics  []ComparedMetric `json:"metrics"`
	Gates    []ComparedGate   `json:"gates"`

	Regression *Regression `json:"regression,omitempty"`
	Baseline   *Baseline   `json:"baseline,omitempty"`
}

// ComparedSystem is one of the systems with its runs in the order of rounds.
type ComparedSystem struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Version  string            `json:"version,omitempty"`
	Revision string            `json:"revision,omitempty"` // commit that it was built from, where revisions are compared
	Command  []string          `json:"command,omitempty"`
	Verdict  Verdict           `json:"verdict"`
	Notices  []string          `json:"notices,omitempty"` // of its runs, each once
	Errors   map[string]int64  `json:"errors,omitempty"`  // by class, of all rounds
	Missing  map[string]string `json:"missing,omitempty"` // metric name → why it isn't offered
	Runs     []ComparedRun     `json:"runs"`
}

// ComparedRun is what the comparison keeps of one run.
type ComparedRun struct {
	Round    int                 `json:"round"`    // from 1
	Position int                 `json:"position"` // in its round, from 1
	File     string              `json:"file"`     // its result file, from the comparison's folder
	Verdict  Verdict             `json:"verdict"`
	Complete bool                `json:"complete"`
	Requests int64               `json:"requests"`
	Metrics  map[string]*float64 `json:"metrics"`
	Warmup   float64             `json:"warmup"` // where the steady state begins on the run's clock
	// Series and Histogram are of the new arm, for the figures.
	Series    []SeriesPoint `json:"series,omitempty"`
	Histogram string        `json:"histogram,omitempty"` // latency, as in [System]
}

// SeriesPoint is what a figure needs of an [Interval]; T is its end.
type SeriesPoint struct {
	T        float64  `json:"t"`
	P50      *float64 `json:"p50,omitempty"`
	P95      *float64 `json:"p95,omitempty"`
	P99      *float64 `json:"p99,omitempty"`
	HitRatio *float64 `json:"hit,omitempty"`
	Memory   *float64 `json:"mem,omitempty"`
	CPU      *float64 `json:"cpu,omitempty"`
}

// Bounds are an estimate with its two-sided interval; without one, Low and High
// are nil and Note says why.
type Bounds struct {
	Value *float64 `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
	Note  string   `json:"note,omitempty"`
}

// ComparedMetric is one metric of every system, in the order of systems.
type ComparedMetric struct {
	Metric string          `json:"metric"`
	Unit   string          `json:"unit"`
	Values []ComparedValue `json:"values"`
}

// ComparedValue is a metric of one system over the rounds: the geometric mean
// where every value is positive and the metric is no share, else the mean.
type ComparedValue struct {
	System string `json:"system"`
	Rounds int    `json:"rounds"` // that have a value
	Bounds
	// Relative is the comparison with the first system, paired by round: how
	// many times as much, or, where Difference is set since a value isn't
	// positive, how much more. Nil for the first system.
	Relative   *Bounds `json:"relative,omitempty"`
	Difference bool    `json:"difference,omitempty"`
}

// ComparedGate is one gate of the scenario on every system.
type ComparedGate struct {
	Gate    string           `json:"gate"`
	Metric  string           `json:"metric"`
	System  string           `json:"system"` // the arm it is written on
	Implied bool             `json:"implied,omitempty"`
	Cells   []ComparedByGate `json:"cells"` // in the order of systems
}

// ComparedByGate is what one system's runs made of a gate: a pass if each of
// them passed, a fail if one failed, else inconclusive; of revisions, a share that
// no round decided is judged by all rounds together.
type ComparedByGate struct {
	System  string    `json:"system"`
	Verdict Verdict   `json:"verdict"`
	Rounds  []Verdict `json:"rounds"`
	Reason  string    `json:"reason,omitempty"` // of the first round that didn't pass, or of all together
	Pooled  bool      `json:"pooled,omitempty"` // judged by all rounds together
}

// The outcomes of a check or a question that may have no answer.
const (
	Held     = "held"
	Violated = "violated"
	Unknown  = "unknown"
)

// FairnessCheck is one condition under which the systems are comparable.
type FairnessCheck struct {
	Check string `json:"check"` // "same upstream protocol"
	State string `json:"state"` // [Held], [Violated] or [Unknown]
	Found string `json:"found"` // what was seen, in one sentence
}

// Regression is the question whether the second system is worse than the first
// by more than the tolerance.
type Regression struct {
	Tolerance float64            `json:"tolerance"` // 0.05: 5 % more
	Looks     int                `json:"looks"`     // planned
	Looked    int                `json:"looked"`    // taken, the last of them shown
	Level     float64            `json:"level"`     // confidence of each one-sided bound, so that all looks and metrics together err in 5 %
	Metrics   []RegressionMetric `json:"metrics"`
	Identical bool               `json:"identical"` // the two programs are the same, byte by byte
}

// RegressionMetric is the answer by one metric: how many times as bad the second
// system is, above 1 worse whatever the metric's direction.
type RegressionMetric struct {
	Metric string `json:"metric"`
	Bounds
	State string `json:"state"` // "regression", "within" (the whole interval is below the tolerance) or "open"
	// Detectable is the smallest true factor that would have been shown to be a
	// regression in nine of ten such comparisons; nil where there is no interval.
	Detectable *float64 `json:"detectable"`
}

// Baseline is an earlier run or comparison that this one is held against.
type Baseline struct {
	File    string    `json:"file"`
	Started time.Time `json:"started"`
	Differs []string  `json:"differs"` // what isn't the same: machine, scenario, program
	Caveat  string    `json:"caveat"`
	// Values are by metric and system: now over then.
	Values []BaselineValue `json:"values"`
}

// BaselineValue is one metric of one system now over what it was then.
type BaselineValue struct {
	Metric     string  `json:"metric"`
	Unit       string  `json:"unit"`
	System     string  `json:"system"`
	Then       string  `json:"then"` // the system of the baseline
	Before     float64 `json:"before"`
	Now        float64 `json:"now"`
	Bounds             // of the ratio, or of the difference
	Difference bool    `json:"difference,omitempty"`
}
