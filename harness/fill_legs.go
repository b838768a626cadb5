package harness

import (
	"strings"

	"phasegate/harness/scenario"
	"phasegate/reports/result"
)

// clientLeg is what the load generator spoke with a system.
func (r *record) clientLeg(name string) *result.Leg {
	w := r.data.Windows[name]
	leg := &result.Leg{
		Requests: w.Requests, HTTP1: w.ClientHTTP1, Reused: w.ClientReused, Connections: w.ClientConnections,
		FullHandshakes:   w.ClientHandshakes - w.ClientHandshakeFailures, // the generator keeps no sessions
		FailedHandshakes: w.ClientHandshakeFailures,
	}
	if strings.HasPrefix(r.begun.system(name).URL, "https:") {
		leg.H2 = w.ClientHTTP2
	} else {
		leg.H2C = w.ClientHTTP2
	}
	return leg
}

// upstreamLeg is what a system spoke with the upstream; nil where the upstream's
// ledger says nothing of it, and where no system stands before the upstream.
func (r *record) upstreamLeg(name string) *result.Leg {
	w := r.data.Windows[name]
	if _, missing := r.data.Missing[name]["http2_adoption"]; missing || !w.HaveLedger || r.begun.system(name).Kind == string(scenario.KindDirect) {
		return nil
	}
	covered := w.Ledgered()
	l := covered.Ledger
	// Each counter is rounded by itself where a reading's rise is spread over
	// intervals, so a part may be one more than the whole.
	return &result.Leg{
		Requests: l.Requests, HTTP1: max(l.Requests-l.HTTP2, 0), H2: max(l.HTTP2-l.H2C, 0), H2C: l.H2C,
		Reused: l.Reused, Connections: l.Connections,
		FullHandshakes: max(l.Handshakes-l.Resumed, 0), ResumedHandshakes: l.Resumed, FailedHandshakes: l.HandshakeFailures,
		GoAways: &l.GoAways,
	}
}
