package timeline

import "time"

// Entry is one thing that a [Series] is built from: exactly one of its fields
// is set. Its JSON is one line of a run's evidence; times in it are nanoseconds
// from the schedule's start, sums are seconds.
type Entry struct {
	Requests  *Part      `json:"requests,omitempty"`
	Resources *Resources `json:"resources,omitempty"`
	Ledger    *Ledger    `json:"ledger,omitempty"`
}

// Part is what was seen of one interval of a system since the last part of the
// same one. An interval has a part for every look at it while its requests
// ended; together they are the interval, and those up to some look are what was
// known by then, so that what was decided then can be decided again.
type Part struct {
	System string        `json:"system"`
	Start  time.Duration `json:"start_ns"` // of the interval
	Counts
	Over []int64 `json:"over,omitempty"` // latencies at or above each of Config.Over, ascending

	// How many values its latency and service time have in the histogram logs.
	Latencies int64 `json:"latencies,omitempty"`
	Services  int64 `json:"services,omitempty"`

	latency, service packed
}

// Resources is a sample of what a system used.
type Resources struct {
	System string        `json:"system"`
	At     time.Duration `json:"at_ns"`
	Usage
}

// Ledger is a reading of the upstream's ledger of a system: running totals.
type Ledger struct {
	System string        `json:"system"`
	At     time.Duration `json:"at_ns"`
	LedgerCounts
}
