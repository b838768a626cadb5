package scenario

import (
	"errors"
	"fmt"
	"strings"
)

var operators = []Op{Less, LessEqual, Greater, GreaterEqual}

// conditionAllowed is the end of messages about a condition as a whole.
const conditionAllowed = "METRIC OP VALUE, such as p95_latency < 10ms or cache_hit_ratio > 70%"

// ParseCondition reads the sentence that a gate or trigger is written as:
// "METRIC OP VALUE", with or without white space, where OP is <, <=, > or >=
// and VALUE has the metric's unit. A condition that every possible value
// satisfies, or none, is an error: it would judge nothing. The error says what
// was found and what is allowed.
func ParseCondition(text string) (Condition, error) {
	compact := strings.Join(strings.Fields(text), " ")
	const signs = "<>=!≤≥≠~"
	name, rest := compact, ""
	if end := strings.IndexAny(compact, " "+signs); end >= 0 {
		name, rest = compact[:end], strings.TrimSpace(compact[end:])
	}
	value := strings.TrimSpace(strings.TrimLeft(rest, signs))
	op := Op(strings.TrimSpace(strings.TrimSuffix(rest, value)))

	if name == "" {
		return Condition{}, fmt.Errorf("%s doesn't begin with a metric; allowed: %s", quote(compact), conditionAllowed)
	}
	metric, ok := Lookup(name)
	if !ok {
		return Condition{}, unknownMetric(name)
	}
	if op == "" {
		return Condition{}, fmt.Errorf("%s has no operator after the metric; allowed: %s", quote(compact), listed(operators))
	}
	c := Condition{Metric: metric, Op: op}
	switch op {
	case Less, LessEqual, Greater, GreaterEqual:
	default:
		return Condition{}, fmt.Errorf("unknown operator %s; allowed: %s", op, listed(operators))
	}
	if value == "" {
		return Condition{}, fmt.Errorf("%s has no value after the operator; allowed: %s", quote(compact), conditionAllowed)
	}
	var err error
	if c.Threshold, err = metric.Unit.parse(value); err != nil {
		return Condition{}, fmt.Errorf("%s: %w", name, err)
	}
	c.Text = fmt.Sprintf("%s %s %s", name, op, strings.ReplaceAll(value, " ", ""))
	if err := c.decides(); err != nil {
		return Condition{}, err
	}
	return c, nil
}

// unknownMetric names what may have been meant, or else everything there is.
func unknownMetric(name string) error {
	if whole := strings.ReplaceAll(name, ".", ""); whole != name {
		if m, ok := Lookup(whole); ok && m.Estimator == ByQuantile { // p99.9_latency
			return fmt.Errorf("unknown metric %s; allowed: %s, since quantiles are written without a point", quote(name), whole)
		}
	}
	if near := Nearest(name, names()); near != nil {
		return fmt.Errorf("unknown metric %s; nearest: %s", quote(name), listed(near))
	}
	return fmt.Errorf("unknown metric %s; allowed: %s", quote(name), listed(names()))
}

// decides returns an error unless some possible value satisfies the condition
// and another one doesn't. Shares end at 0 and 1, all else but slopes at 0.
func (c Condition) decides() error {
	if c.Metric.Unit == BytesPerHour {
		return nil
	}
	always := c.Op == GreaterEqual && c.Threshold == 0
	never := c.Op == Less && c.Threshold == 0
	if c.Metric.Unit == Share {
		always = always || c.Op == LessEqual && c.Threshold == 1
		never = never || c.Op == Greater && c.Threshold == 1
	}
	const deciding = "a threshold that some values meet and others don't"
	switch {
	case always:
		return errors.New(quote(c.Text) + " holds for every possible value, so it decides nothing; allowed: " + deciding)
	case never:
		return errors.New(quote(c.Text) + " holds for no possible value; allowed: " + deciding)
	}
	return nil
}
