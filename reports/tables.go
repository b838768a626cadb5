package reports

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"

	"phasegate/reports/result"
)

// Percentiles writes the latency of a system's steady state as HdrHistogram's
// percentile output (.hgrm), in milliseconds, five ticks per half distance. A
// system without a sample gives a comment that says so.
func Percentiles(w io.Writer, s result.System) error {
	h, err := result.DecodeHistogram(s.Histogram)
	if err != nil {
		return err
	}
	if h == nil {
		_, err := io.WriteString(w, "#[no samples]\n")
		return err
	}
	const microsPerMilli = 1000
	_, err = h.PercentilesPrint(w, 5, microsPerMilli)
	return err
}

// timelineColumns are named like the fields of result.json; times in seconds,
// sizes in bytes, shares between 0 and 1.
var timelineColumns = []string{
	"t", "system", "stage", "split", "offered", "requests", "errors", "p50", "p95", "p99",
	"cacheable", "upstream_requests", "hit_ratio", "memory", "cpu",
}

// Timeline writes the intervals as comma-separated values (RFC 4180) with a
// header. A field without a sample is empty.
func Timeline(w io.Writer, r *result.Result) error {
	c := csv.NewWriter(w)
	if err := c.Write(timelineColumns); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	for _, in := range r.Timeline {
		upstream := ""
		if in.UpstreamRequests != nil {
			upstream = strconv.FormatInt(*in.UpstreamRequests, 10)
		}
		err := c.Write([]string{
			number(&in.T), in.System, in.Stage, number(&in.Split),
			strconv.FormatInt(in.Offered, 10), strconv.FormatInt(in.Requests, 10), strconv.FormatInt(in.Errors, 10),
			number(in.P50), number(in.P95), number(in.P99),
			strconv.FormatInt(in.Cacheable, 10), upstream, number(in.HitRatio), number(in.Memory), number(in.CPU),
		})
		if err != nil {
			return fmt.Errorf("write timeline: %w", err)
		}
	}
	c.Flush()
	return c.Error()
}

// number is the shortest text that reads back as the same value.
func number(v *float64) string {
	if v == nil || math.IsNaN(*v) {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

func uintText(n uint64) string { return strconv.FormatUint(n, 10) }
