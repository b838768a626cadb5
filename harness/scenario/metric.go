package scenario

// Unit of a metric and of every threshold on it.
type Unit string

// The units. Thresholds and values are float64 in these.
const (
	Seconds      Unit = "s"
	Bytes        Unit = "B"
	BytesPerHour Unit = "B/h"
	Share        Unit = "share" // 0 to 1
	PerSecond    Unit = "1/s"
	Count        Unit = "count"
	Ratio        Unit = "ratio" // a factor
	Dollars      Unit = "$"
	Points       Unit = "points" // 0 to 10
)

// Estimator says by which rule of verdicts.md a metric is estimated and judged.
type Estimator int

// The estimators.
const (
	ByShare    Estimator = iota // k of n; Clopper–Pearson on the effective sample
	ByQuantile                  // a share in disguise: how many took the threshold or longer
	ByMean                      // mean, rate or ratio of means; batch means over intervals
	ByCount                     // none passes, one fails
	ByPeak                      // exact for what was observed
	BySlope                     // line through the troughs
	ByTime                      // exact: one observed duration
)

// Source says who measures a metric, and so which systems can't offer it.
type Source int

// The sources.
const (
	FromGenerator  Source = iota // the load generator: every system
	FromLedger                   // the mock upstream's ledger: systems that provably stand before it
	FromResources                // /proc of a process tree that we started
	FromHeaders                  // what the system claims of itself, in its answers or its metrics
	FromSequential               // the sequential stage: needs old direct, and hits
	FromNowhere                  // this version can't measure it; Metric.Why says so
)

// Metric is one thing that a gate or trigger can be written on.
type Metric struct {
	Name      string
	Unit      Unit
	Estimator Estimator
	Quantile  float64 // ByQuantile: 0.95 for p95_latency
	Source    Source
	Help      string // one line: the definition
	Why       string // FromNowhere: why it can't be measured yet
}

// Op compares a metric with a threshold.
type Op string

// The operators.
const (
	Less         Op = "<"
	LessEqual    Op = "<="
	Greater      Op = ">"
	GreaterEqual Op = ">="
)

// Condition is a parsed "metric op value". Threshold is in the metric's unit.
type Condition struct {
	Text      string // "METRIC OP VALUE", the value as written, white space normalised
	Metric    Metric
	Op        Op
	Threshold float64
}

// Holds reports whether value satisfies the condition.
func (c Condition) Holds(value float64) bool {
	switch c.Op {
	case Less:
		return value < c.Threshold
	case LessEqual:
		return value <= c.Threshold
	case Greater:
		return value > c.Threshold
	default:
		return value >= c.Threshold
	}
}
