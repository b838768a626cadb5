package timeline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Class is how one request ended.
type Class uint8

// The classes. Every class but OK counts for error_rate; Transport, Timeout
// and ServerError count against availability too.
const (
	OK          Class = iota
	Transport         // no complete response: refused, reset, cut off
	Timeout           // not finished within the scenario's timeout from its due time
	ServerError       // 5xx
	Status            // a status that the scenario doesn't expect
	Wrong             // a response that isn't the one asked for, or damaged
	Unproven          // verification is on and the answer carries no self-description
	Classes     = iota
)

var classNames = [Classes]string{"ok", "transport", "timeout", "5xx", "status", "wrong", "unproven"}

// String returns the name used in result files: "ok", "transport", "timeout",
// "5xx", "status", "wrong" or "unproven".
func (c Class) String() string { return classNames[c] }

// ByClass is a number of requests for every class.
type ByClass [Classes]int64

// MarshalJSON writes the numbers that aren't 0 under the classes' names.
func (c ByClass) MarshalJSON() ([]byte, error) {
	named := map[string]int64{}
	for class, n := range c {
		if n != 0 {
			named[Class(class).String()] = n
		}
	}
	return json.Marshal(named)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *ByClass) UnmarshalJSON(data []byte) error {
	var named map[string]int64
	if err := json.Unmarshal(data, &named); err != nil {
		return err
	}
	*c = ByClass{}
	for name, n := range named {
		class := slices.Index(classNames[:], name)
		if class < 0 {
			return fmt.Errorf("class %q; allowed: %s", name, strings.Join(classNames[:], ", "))
		}
		c[class] = n
	}
	return nil
}

// Usable reports whether the client got an answer it could use.
func (c Class) Usable() bool { return c != Transport && c != Timeout && c != ServerError }

// Complete reports whether the client got a whole answer in time, whatever it was.
func (c Class) Complete() bool { return c != Transport && c != Timeout }

// Outcome is one finished request.
type Outcome struct {
	Due     time.Duration // when it should have been sent, from the schedule's start
	Latency time.Duration // from the due time to the last body byte; at least the timeout if there was no usable answer
	Service time.Duration // from the send to the last body byte; 0 if it was never sent
	Wait    time.Duration // from the due time to the send, for whatever reason; 0 if it was never sent
	Lag     time.Duration // how late the load generator itself was to get to it
	Class   Class

	Cacheable bool // GET or HEAD
	Truncated bool // of class Transport: an answer began, and its connection ended within the body
	Stale     bool // older than its lifetime plus any allowance when it was asked for
	WrongAge  bool // came from a store without an Age field, or with one that isn't its age
	Blocking  bool // born after it was asked for: it waited for the upstream
	Proven    bool // carried the mock upstream's self-description
	HTTP1     bool // answered over HTTP/1.1 or 1.0 on the client's leg …
	HTTP2     bool // … or over HTTP/2; neither where there was no answer
	Reused    bool // answered on a connection that had brought an answer before
	Claim     Claim
}

// Claim is what the answer's own headers say about the cache.
type Claim uint8

// The claims.
const (
	NoClaim Claim = iota
	ClaimHit
	ClaimMiss
)
