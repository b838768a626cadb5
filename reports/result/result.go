package result

import (
	"fmt"
	"time"
)

// Schema is the version of the result file that this package reads and writes.
const Schema = 1

// Verdict is the outcome of a gate or of a whole run.
type Verdict string

// The three verdicts, and the word for a run that could not be judged because
// the environment failed (in Result.Verdict only).
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
	EnvError     Verdict = "error"
)

// Result is one run: the record from which every report is made. Times are in
// seconds, sizes in bytes, shares between 0 and 1; nil stands for "no sample".
type Result struct {
	Schema    int       `json:"schema"`
	Scenario  string    `json:"scenario"`
	Title     string    `json:"title,omitempty"`
	Profile   string    `json:"profile"`
	Seed      uint64    `json:"seed"`
	TimeScale float64   `json:"time_scale"`
	Started   time.Time `json:"started"`
	Duration  float64   `json:"duration"` // wall clock of the whole run
	Complete  bool      `json:"complete"` // false: interrupted or broken off; Incomplete says why

	Verdict    Verdict `json:"verdict"`
	Incomplete string  `json:"incomplete,omitempty"`
	Error      string  `json:"error,omitempty"` // set with verdict "error"
	// Stopped is where a gate that had failed for certain ended the run (abort:
	// on_failure), in seconds on the timeline's clock; nil if none did.
	Stopped *float64 `json:"stopped,omitempty"`

	Environment Environment `json:"environment"`
	// Notices must be read before the figures: what was scaled, assumed, not
	// offered or fell short. Shown at the top of every report.
	Notices []string `json:"notices"`

	Gates    []Gate            `json:"gates"`
	Triggers []Trigger         `json:"triggers"`
	Systems  map[string]System `json:"systems"` // by arm: "old", "new"
	Timeline []Interval        `json:"timeline"`
	Marks    []Mark            `json:"marks"` // stages of the load, on the timeline's clock
	Load     *Load             `json:"load,omitempty"`
}

// Environment says where a run was made and how to repeat it.
type Environment struct {
	Go       string   `json:"go"`
	CPUs     int      `json:"cpus"`
	CPUModel string   `json:"cpu_model,omitempty"`
	Memory   int64    `json:"memory,omitempty"`
	Kernel   string   `json:"kernel"`
	OS       string   `json:"os,omitempty"`
	Upstream string   `json:"upstream"` // "process", "container" or "none"
	Commit   string   `json:"commit"`
	Command  []string `json:"command,omitempty"` // argument vector that repeats the run
	Source   string   `json:"source,omitempty"`  // the scenario's file, or "embedded"
}

// Gate is one judged claim. Value, Low and High are the estimate and its
// two-sided interval in the metric's unit; Threshold likewise. Confidence is
// that of the one-sided bound the verdict rests on.
type Gate struct {
	Gate       string   `json:"gate"` // as written in the scenario
	Metric     string   `json:"metric"`
	System     string   `json:"system"`
	Op         string   `json:"op"`
	Threshold  float64  `json:"threshold"`
	Unit       string   `json:"unit"` // "s", "B", "B/h", "share", "1/s", "count", "ratio"
	Value      *float64 `json:"value"`
	Low        *float64 `json:"low"`
	High       *float64 `json:"high"`
	Confidence float64  `json:"confidence"`
	Samples    int64    `json:"samples"`
	Verdict    Verdict  `json:"verdict"`
	Reason     string   `json:"reason"` // one sentence; never empty unless the verdict is pass
	Looks      int      `json:"looks"`
	Implied    bool     `json:"implied,omitempty"` // not written in the scenario: judged because verification is on
	Drill      int      `json:"drill,omitempty"`   // number of the drill, from 1, whose expectation it is; 0 for the steady state's
}

// Trigger is a rollback trigger's fate. Times are seconds on the timeline's
// clock, which runs as the run did; For is how long the condition must hold as
// the scenario has it, before it is divided by the result's TimeScale.
type Trigger struct {
	Condition    string   `json:"condition"`
	System       string   `json:"system"`
	For          float64  `json:"for"`
	Action       string   `json:"action"`
	State        string   `json:"state"`            // "inactive", "pending", "firing" at the end; "unknown" where it had no data at all
	Reason       string   `json:"reason,omitempty"` // why it had none, at all or at the last evaluation
	Evaluations  int      `json:"evaluations"`
	WithData     int      `json:"with_data"` // of Evaluations; at the others it wasn't watched
	PendingAt    *float64 `json:"pending_at"`
	FiredAt      *float64 `json:"fired_at"`
	RollbackTime *float64 `json:"rollback_time"`
	Worst        *float64 `json:"worst,omitempty"` // the worst window seen, in Unit
	Threshold    float64  `json:"threshold"`
	Unit         string   `json:"unit"`
}

// System is what was measured of one arm over the steady state.
type System struct {
	Kind     string              `json:"kind"` // "optimizer", "command", "url", "direct", …
	URL      string              `json:"url,omitempty"`
	Command  []string            `json:"command,omitempty"`
	Version  string              `json:"version,omitempty"`
	Requests int64               `json:"requests"`
	Errors   map[string]int64    `json:"errors,omitempty"`   // by class: "transport", "timeout", "5xx", "status", "wrong", …
	Metrics  map[string]*float64 `json:"metrics"`            // by metric name; null where there was no sample
	Counts   map[string]Count    `json:"counts,omitempty"`   // of those that are shares, what they are shares of
	Missing  map[string]string   `json:"missing,omitempty"`  // metric name → why it is not offered
	Exit     string              `json:"exit,omitempty"`     // set if the system ended by itself: "exit status 1 at 12.3 s"
	LogTail  []string            `json:"log_tail,omitempty"` // its last log lines, where it ended by itself or never became healthy
	LogFile  string              `json:"log_file,omitempty"` // relative to the output folder
	// Histogram and ServiceHistogram hold latency and service time of the
	// steady state: HdrHistogram V2 compressed encoding, base64, microseconds.
	Histogram        string   `json:"histogram,omitempty"`
	ServiceHistogram string   `json:"service_histogram,omitempty"`
	MemoryLimit      *float64 `json:"memory_limit,omitempty"` // drawn in the memory plot
	Examples         []string `json:"examples,omitempty"`     // the first failed answers, one sentence each
	Growth           *Growth  `json:"growth,omitempty"`       // of resident memory in the steady state
	Setup            *Setup   `json:"setup,omitempty"`        // nil in results of earlier versions
	CPUs             float64  `json:"cpus,omitempty"`         // available to it: what its CPU use is a share of; 0 where it wasn't sampled, or in results of earlier versions
	ClientLeg        *Leg     `json:"client_leg,omitempty"`   // from the clients to it, by the load generator; nil in results of earlier versions …
	UpstreamLeg      *Leg     `json:"upstream_leg,omitempty"` // … from it to the upstream, by the upstream's ledger; nil where that says nothing of it
}

// Count is what a share is made of.
type Count struct {
	Part int64  `json:"part"`
	All  int64  `json:"all"`
	Of   string `json:"of"` // what is counted: "requests", "TLS handshakes", …
}

// Leg is what was spoken on one side of a system in the steady state, as it was
// on the wire.
type Leg struct {
	Requests    int64 `json:"requests"` // all; on the clients' leg some may have got no answer, over whatever protocol
	HTTP1       int64 `json:"http1"`    // of these, over HTTP/1.1 or 1.0 …
	H2          int64 `json:"h2"`       // … over HTTP/2, in TLS …
	H2C         int64 `json:"h2c"`      // … and in clear text
	Reused      int64 `json:"reused"`   // of these, on a connection that had been used before
	Connections int64 `json:"connections"`
	// TLS handshakes that were completed, without an earlier session and with one,
	// and those that were begun and weren't.
	FullHandshakes    int64  `json:"full_handshakes"`
	ResumedHandshakes int64  `json:"resumed_handshakes"`
	FailedHandshakes  int64  `json:"failed_handshakes"`
	GoAways           *int64 `json:"goaways"` // connections that the upstream gave notice on, by GOAWAY or, in HTTP/1.1, by Connection: close; nil on the clients' leg, where nobody counts them
}

// HTTP2 is the number of requests over HTTP/2.
func (l *Leg) HTTP2() int64 { return l.H2 + l.H2C }

// TLS is the number of TLS handshakes, completed or not.
func (l *Leg) TLS() int64 { return l.FullHandshakes + l.ResumedHandshakes + l.FailedHandshakes }

// Setup is how a system was set up and used: what must be alike for a
// comparison to be fair. Nil is unknown.
type Setup struct {
	CacheBytes    *int64   `json:"cache_bytes"`    // room for stored responses, as configured
	AccessLog     *bool    `json:"access_log"`     // it wrote a line for every request
	UpstreamHTTP2 *float64 `json:"upstream_http2"` // share of upstream requests over HTTP/2, of the steady state like the next …
	UpstreamReuse *float64 `json:"upstream_reuse"` // … and of those on a connection that had been used before
	Warmed        int64    `json:"warmed"`         // targets that it answered before the clock started
}

// Interval is one second (or longer) of one arm, binned by due time. Quantiles
// are of latency; nil where nothing finished. T is its end on the timeline's
// clock, which starts with the warm-up. From is its start where that is not the
// end of the arm's interval before: nothing was sent in between.
type Interval struct {
	From             *float64 `json:"from,omitempty"`
	T                float64  `json:"t"`
	System           string   `json:"system"`
	Stage            string   `json:"stage"` // one of the stages below
	Split            float64  `json:"split"` // share of traffic that the arm is meant to get
	Offered          int64    `json:"offered"`
	Requests         int64    `json:"requests"` // finished
	Errors           int64    `json:"errors"`
	P50              *float64 `json:"p50"`
	P95              *float64 `json:"p95"`
	P99              *float64 `json:"p99"`
	Cacheable        int64    `json:"cacheable"`         // GET and HEAD requests sent
	UpstreamRequests *int64   `json:"upstream_requests"` // GET and HEAD seen by the upstream's ledger
	HitRatio         *float64 `json:"hit_ratio"`
	Memory           *float64 `json:"memory"`
	CPU              *float64 `json:"cpu"` // share of the CPUs available
}

// The stages of an interval.
const (
	StageWarmup = "warmup"
	StageSteady = "steady"
	StageDrill  = "drill" // after the steady state, and apart from what gates judge
)

// Mark names a span on the timeline's clock: a stage, or the fault of a drill
// from when it was injected until it was mended.
type Mark struct {
	Name string  `json:"name"` // "warmup", "steady", or a [DrillMark]
	From float64 `json:"from"`
	To   float64 `json:"to"`
}

// DrillMark is the name of the n-th drill's mark, counted from 1: "drill 2:
// pause of the new system for 30s".
func DrillMark(n int, fault string) string { return fmt.Sprintf("drill %d: %s", n, fault) }

// Spoken is what one arm was sent over one protocol: the one that was spoken,
// whatever the scenario asks for.
type Spoken struct {
	System      string `json:"system"`
	Protocol    string `json:"protocol"`    // "http/1.0", "http/1.1", "h2" or "h2c"
	Requests    int64  `json:"requests"`    // with a complete response
	Connections int64  `json:"connections"` // opened
}

// Load is what the load generator says of itself.
type Load struct {
	Source        string           `json:"source"`       // one line: "zipf(1.1) over 5,000 keys", "access log FILE, 10,000 requests"
	OfferedRate   float64          `json:"offered_rate"` // requests per second due
	SentRate      float64          `json:"sent_rate"`
	Completed     float64          `json:"completed_rate"`
	LagP50        *float64         `json:"schedule_lag_p50"` // send − due while a connection was free
	LagP99        *float64         `json:"schedule_lag_p99"`
	LagMax        *float64         `json:"schedule_lag_max"`
	ClosedLoop    bool             `json:"closed_loop,omitempty"` // no schedule: as many requests as the clients could make
	Connections   map[string]int   `json:"connections"`           // opened, by arm
	Spoken        []Spoken         `json:"spoken,omitempty"`      // by arm and protocol, as it was on the wire
	CPU           float64          `json:"cpu"`                   // CPU seconds of the whole harness process over the run: the load generator, and what watches and judges
	Prewarmed     int64            `json:"prewarmed"`
	Stolen        float64          `json:"stolen"`                // share of the machine's CPU time that went to others on its host, in the steady state
	PrewarmFailed int64            `json:"prewarm_failed"`        // of these, without a usable answer
	Retried       map[string]int64 `json:"retried"`               // by arm: sent again, since a reused connection had ended silently, or, over HTTP/2, since the server said that it hadn't touched them
	Queued        map[string]int64 `json:"queued"`                // by arm: found every connection busy when due
	LogSkipped    int64            `json:"log_skipped,omitempty"` // unusable lines of a replayed log
}
