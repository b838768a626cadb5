package optimizer

import (
	"fmt"
	"strings"
	"testing"
)

// requirement is one MUST, SHOULD or MAY of a specification that concerns a shared
// cache, in the order of the text, with a run that shows it.
type requirement struct {
	section, level, why string
	steps               []step
	options             []func(*Config)
}

func withCache(set func(*Cache)) []func(*Config) {
	return []func(*Config){func(c *Config) { set(&c.Cache) }}
}

const fresh = "Cache-Control: max-age=3600"

// requirements is to be held against the texts; what only parsing and arithmetic can
// get wrong has its rows in package httpcache.
var requirements = []requirement{
	// RFC 9111, storing.
	{section: "9111 §2", level: "MUST", why: "the key holds the whole target: another query is another resource", steps: []step{
		{ask: "GET /a?x=1", up: fresh, want: "miss"}, {ask: "GET /a?x=2", up: fresh, want: "miss"}, {ask: "GET /a?x=1", want: "hit"}}},
	{section: "9111 §2", level: "MUST", why: "and the host", steps: []step{
		{ask: "GET /a", up: fresh, want: "miss"}, {ask: "GET http://other.test/a", up: fresh, want: "miss"}, {ask: "GET http://API.test/a", want: "hit"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: a method that isn't understood", steps: []step{
		{ask: "BREW", up: fresh, want: "miss"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: an answer to POST without Content-Location", steps: []step{
		{ask: "POST", up: fresh, want: "miss"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: must-understand and a status that isn't understood", steps: []step{
		{up: "599|Cache-Control: max-age=60, must-understand", want: "miss|599"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: no-store", steps: []step{
		{up: "Cache-Control: max-age=60, no-store", want: "miss"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: private", steps: []step{
		{up: "Cache-Control: max-age=60, private", want: "miss"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: Authorization without leave", steps: []step{
		{ask: "Authorization: x", up: fresh, want: "miss"}, {want: "miss"}}},
	{section: "9111 §3", level: "MUST", why: "not stored: nothing allows it", steps: []step{
		{up: "302|Location: /b", want: "miss|302"}, {want: "miss"}}},
	{section: "9111 §3", level: "MAY", why: "stored: public", steps: []step{
		{up: "302|Cache-Control: public|Last-Modified: -86400", want: "miss"}, {want: "hit|302"}}},
	{section: "9111 §3", level: "MAY", why: "stored: Expires", steps: []step{
		{up: "302|Expires: +60", want: "miss"}, {want: "hit|302"}}},
	{section: "9111 §3", level: "MAY", why: "stored: s-maxage", steps: []step{
		{up: "302|Cache-Control: s-maxage=60", want: "miss"}, {want: "hit|302"}}},
	{section: "9111 §3", level: "MAY", why: "stored: a status that is cacheable by heuristics", steps: []step{
		{up: "301|Last-Modified: -86400", want: "miss"}, {want: "hit|301"}}},
	{section: "9111 §3.1", level: "MUST", why: "all fields are stored, unknown ones too", steps: []step{
		{up: fresh + "|X-Odd: 1|Foo: a|Foo: b", want: "miss"}, {want: "hit|X-Odd: 1|Foo: a, b"}}},
	{section: "9111 §3.1", level: "MUST", why: "but Connection and those that it names", steps: []step{
		{up: fresh + "|Connection: A, keep-alive|A: 1|B: 2|Keep-Alive: 5", want: "miss|!A|B: 2"}, {want: "hit|!A|!Keep-Alive|B: 2"}}},
	{section: "9111 §3.1", level: "MUST", why: "and the fields of one hop", steps: []step{
		{up: fresh + "|Proxy-Authenticate: x|Proxy-Connection: x|Te: x|Upgrade: x|Proxy-Authentication-Info: x", want: "miss"},
		{want: "hit|!Proxy-Authenticate|!Proxy-Connection|!Te|!Upgrade|!Proxy-Authentication-Info"}}},
	{section: "9111 §3.1", level: "MAY", why: "and those of a qualified private, which the first client gets", steps: []step{
		{up: `Cache-Control: max-age=60, private="a, b"|A: 1|B: 2|C: 3`, want: "miss|A: 1|B: 2|C: 3"}, {want: "hit|!A|!B|C: 3"}}},
	{section: "9111 §3.2", level: "MUST", why: "a 304 updates each field that it brings", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"|A: 1|B: 1|Content-Type: x/y`, want: "miss"},
		{wait: 3, up: `304|Cache-Control: max-age=60|ETag: "a"|A: 2|Content-Type: x/z`, want: "etag|200|A: 2|B: 1|Content-Type: x/z|body=answer 1"},
		{want: "hit|A: 2|B: 1|Content-Type: x/z|Cache-Control: max-age=60"}}},
	{section: "9111 §3.2", level: "MUST", why: "but Content-Length and what says how the bytes are to be read", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"|Content-Encoding: gzip`, want: "miss"},
		{wait: 3, up: `304|ETag: "a"|Content-Length: 99|Content-Encoding: br|Content-Range: bytes 0-1/2`, want: "etag|Content-Encoding: gzip|!Content-Range|body=answer 1"}}},
	{section: "9111 §3.2", level: "MUST", why: "and fields of the one hop, and those that the 304's Connection names", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"|A: 1`, want: "miss"},
		{wait: 3, up: `304|Cache-Control: max-age=60|ETag: "a"|Connection: A|A: 2|Keep-Alive: 5`, want: "etag|A: 1|!Keep-Alive"}, {want: "hit|A: 1|!Keep-Alive"}}},
	{section: "9111 §3.3", level: "MUST", why: "partial content isn't stored as the whole", steps: []step{
		{ask: "Range: bytes=0-1", up: "206|" + fresh + "|Content-Range: bytes 0-1/8|body=an", want: "miss|206"}, {want: "miss|200"}}},
	{section: "9111 §3.4", level: "MAY", why: "a range of a stored whole is taken from it, with its fields", steps: []step{
		{up: fresh + "|A: 1", want: "miss"}, {ask: "Range: bytes=2-3", want: "hit|206|Content-Range: bytes 2-3/8|A: 1|body=sw"}}},
	{section: "9111 §3.5", level: "MAY", why: "Authorization with public", steps: []step{
		{ask: "Authorization: x", up: "Cache-Control: max-age=60, public", want: "miss"}, {want: "hit"}}},
	{section: "9111 §3.5", level: "MAY", why: "Authorization with must-revalidate", steps: []step{
		{ask: "Authorization: x", up: "Cache-Control: max-age=60, must-revalidate", want: "miss"}, {want: "hit"}}},
	{section: "9111 §3.5", level: "MAY", why: "Authorization with s-maxage", steps: []step{
		{ask: "Authorization: x", up: "Cache-Control: s-maxage=60", want: "miss"}, {want: "hit"}}},

	// Constructing responses.
	{section: "9111 §4", level: "MUST", why: "a stored response is only reused fresh, allowed stale or validated", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 1, want: "hit"}, {wait: 2, want: "miss"}}},
	{section: "9111 §4", level: "MUST", why: "reuse without validation has Age", steps: []step{
		{up: fresh, want: "miss|!Age"}, {wait: 5, want: "hit|Age: 5"}}},
	{section: "9111 §4", level: "MUST", why: "unsafe methods are written through", steps: []step{
		{up: fresh, want: "miss"}, {ask: "POST", up: "500", want: "miss|500"}, {ask: "DELETE", up: "404", want: "miss|404"}, {want: "hit"}}},
	{section: "9111 §4", level: "MUST", why: "of several the most recent", steps: []step{
		{up: "Cache-Control: max-age=60|A: 1", want: "miss"}, {ask: "Cache-Control: no-cache", up: "Cache-Control: max-age=60|A: 2", want: "miss"}, {want: "hit|A: 2"}}},
	{section: "9111 §4.1", level: "MUST", why: "the fields that Vary names match", steps: []step{
		{ask: "Foo: 1", up: fresh + "|Vary: foo", want: "miss"}, {ask: "Foo: 2", up: fresh + "|Vary: Foo", want: "miss"},
		{ask: "Foo: 1", want: "hit|body=answer 1"}, {ask: "Foo: 2", want: "hit|body=answer 2"}}},
	{section: "9111 §4.1", level: "MUST", why: "absent matches absent only", steps: []step{
		{ask: "Foo: 1", up: fresh + "|Vary: Foo", want: "miss"}, {up: fresh + "|Vary: Foo", want: "miss"}, {want: "hit"}, {ask: "Foo: ", up: fresh + "|Vary: Foo", want: "miss"}}},
	{section: "9111 §4.1", level: "MUST", why: "every field of every line of Vary", steps: []step{
		{ask: "Foo: 1|Bar: 2", up: fresh + "|Vary: Foo|Vary: Bar", want: "miss"}, {ask: "Foo: 1|Bar: 3", up: fresh + "|Vary: Foo, Bar", want: "miss"}, {ask: "Foo: 1|Bar: 2", want: "hit"}}},
	{section: "9111 §4.1", level: "MUST", why: "* matches nothing", steps: []step{
		{up: fresh + "|Vary: Foo, *", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.1", level: "MAY", why: "white space and lines are normalised", steps: []step{
		{ask: "Foo: 1,2", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: 1 , 2", want: "hit"}, {ask: "Foo: 1|Foo: 2", want: "hit"}}},
	{section: "9111 §4.2", level: "MUST", why: "fresh while the lifetime exceeds the age", steps: []step{
		{up: "Cache-Control: max-age=3|Age: 1", want: "miss"}, {wait: 1, want: "hit"}, {wait: 1, want: "miss"}}},
	{section: "9111 §4.2", level: "SHOULD", why: "dates in any case", steps: []step{
		{up: "Expires: thu, 18 AUG 2050 02:01:18 gmt", want: "miss"}, {want: "hit"}}},
	{section: "9111 §4.2", level: "SHOULD", why: "no zone but GMT", steps: []step{
		{up: "Expires: Thu, 18 Aug 2050 02:01:18 UTC", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.2.1", level: "MUST", why: "s-maxage over max-age over Expires", steps: []step{
		{up: "Cache-Control: max-age=1, s-maxage=60|Expires: -10", want: "miss"}, {wait: 30, want: "hit"}}},
	{section: "9111 §4.2.1", level: "MUST", why: "max-age over Expires", steps: []step{
		{up: "Cache-Control: max-age=0|Expires: +60", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.2.1", level: "SHOULD", why: "values that contradict each other: stale", steps: []step{
		{up: "Cache-Control: max-age=60, max-age=70", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.2.1", level: "SHOULD", why: "directives that contradict each other: the most restrictive", steps: []step{
		{up: `Cache-Control: max-age=60, no-cache|ETag: "a"`, want: "miss"}, {up: "304", want: "etag"}}},
	{section: "9111 §4.2.1", level: "SHOULD", why: "an invalid value: stale", steps: []step{
		{up: "Cache-Control: max-age=60s", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.2.2", level: "MUST", why: "no heuristics beside an explicit lifetime", steps: []step{
		{up: "Expires: 0|Last-Modified: -86400", want: "miss"}, {want: "lm"}}},
	{section: "9111 §4.2.2", level: "MUST", why: "nor for a status that isn't heuristically cacheable", steps: []step{
		{up: "403|Last-Modified: -86400", want: "miss|403"}, {want: "miss"}}},
	{section: "9111 §4.2.2", level: "SHOULD", why: "a tenth of the time since Last-Modified", steps: []step{
		{up: "Last-Modified: -100", want: "miss"}, {wait: 9, want: "hit"}, {wait: 1, want: "lm"}}},
	{section: "9111 §4.2.3", level: "MUST", why: "age from Date, if that is larger", steps: []step{
		{up: "Cache-Control: max-age=60|Date: -50", want: "miss"}, {wait: 5, want: "hit|Age: 55"}, {wait: 5, want: "miss"}}},
	{section: "9111 §4.2.3", level: "MUST", why: "a clock ahead of ours gives no negative age", steps: []step{
		{up: "Cache-Control: max-age=60|Date: +50", want: "miss"}, {wait: 5, want: "hit|Age: 5"}}},
	{section: "9111 §4.2.4", level: "MUST", why: "nothing stale unasked while the upstream answers", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "503", want: "miss|503"}}},
	{section: "9111 §4.2.4", level: "MAY", why: "stale while it is disconnected", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "hang up", want: "miss|200|Age: 3"}}},
	{section: "9111 §4.2.4", level: "MUST", why: "but not against no-cache, must-revalidate, proxy-revalidate or s-maxage", steps: []step{
		{ask: "GET /1", up: `Cache-Control: max-age=2, no-cache|ETag: "a"`, want: "miss"}, {ask: "GET /1", wait: 3, up: "hang up", want: "etag|502"},
		{ask: "GET /2", up: "Cache-Control: max-age=2, must-revalidate", want: "miss"}, {ask: "GET /2", wait: 3, up: "hang up", want: "miss|504"},
		{ask: "GET /3", up: "Cache-Control: max-age=2, proxy-revalidate", want: "miss"}, {ask: "GET /3", wait: 3, up: "hang up", want: "miss|504"},
		{ask: "GET /4", up: "Cache-Control: s-maxage=2", want: "miss"}, {ask: "GET /4", wait: 3, up: "hang up", want: "miss|504"}}},
	{section: "9111 §4.3.1", level: "MUST", why: "validation sends ETag", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: W/"a"`, want: "miss"}, {wait: 3, up: "304", want: `etag|up:If-None-Match: W/"a"`}}},
	{section: "9111 §4.3.1", level: "SHOULD", why: "and Last-Modified", steps: []step{
		{up: `Cache-Control: max-age=2|Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT`, want: "miss"}, {wait: 3, up: "304", want: "lm|up:If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"}}},
	{section: "9111 §4.3.1", level: "MUST", why: "and the fields that selected the response", steps: []step{
		{ask: "Foo: 1", up: `Cache-Control: max-age=2|ETag: "a"|Vary: Foo`, want: "miss"}, {ask: "Foo: 1", wait: 3, up: "304", want: "etag|up:Foo: 1"}}},
	{section: "9111 §4.3.2", level: "SHOULD", why: "If-None-Match is answered from the store", steps: []step{
		{up: fresh + `|ETag: "a"|Content-Type: x/y`, want: "miss"}, {ask: `If-None-Match: "b", W/"a"`, want: `hit|304|ETag: "a"|!Content-Type|body=`}}},
	{section: "9111 §4.3.2", level: "MUST", why: "If-Modified-Since only without If-None-Match", steps: []step{
		{up: fresh + `|ETag: "a"|Last-Modified: -60`, want: "miss"}, {ask: `If-None-Match: "b"|If-Modified-Since: +0`, want: "hit|200"}}},
	{section: "9111 §4.3.2", level: "SHOULD", why: "If-Modified-Since against Last-Modified", steps: []step{
		{up: fresh + "|Last-Modified: -60", want: "miss"}, {ask: "If-Modified-Since: -30", want: "hit|304"}, {ask: "If-Modified-Since: -90", want: "hit|200"}}},
	{section: "9111 §4.3.2", level: "SHOULD", why: "or against Date", steps: []step{
		{up: fresh, want: "miss"}, {wait: 9, ask: "If-Modified-Since: -5", want: "hit|304"}, {ask: "If-Modified-Since: -15", want: "hit|200"}}},
	{section: "9111 §4.3.2", level: "MUST", why: "If-Match is for the origin", steps: []step{
		{up: fresh + `|ETag: "a"`, want: "miss"}, {ask: `If-Match: "b"`, up: "412", want: `miss|412|up:If-Match: "b"`}, {want: "hit"},
		{ask: "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", up: "412", want: "miss|412|up:If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"}}},
	{section: "9111 §4.3.3", level: "MUST", why: "304: the stored response, updated", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, up: "304", want: "etag|200|body=answer 1"}}},
	{section: "9111 §4.3.3", level: "MUST", why: "a full response is used, and replaces the stored one", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, up: fresh, want: "etag|body=answer 2"}, {want: "hit|body=answer 2"}}},
	{section: "9111 §4.3.3", level: "MAY", why: "5xx: forwarded where stale isn't allowed", steps: []step{
		{up: `Cache-Control: max-age=2, must-revalidate|ETag: "a"`, want: "miss"}, {wait: 3, up: "500", want: "etag|500"}}},
	{section: "9111 §4.3.3", level: "MAY", why: "to HEAD too: the stored response where it is allowed", steps: []step{
		{up: "Cache-Control: max-age=2, stale-if-error=60|A: 1", want: "miss"}, {wait: 3, ask: "HEAD", up: "503", want: "miss|200|A: 1|Age: 3|Cache-Status: optimizer; fwd=stale"},
		{ask: "HEAD", up: "hang up", want: "miss|200|A: 1"}, {ask: "HEAD", up: "404", want: "miss|404|Cache-Status: optimizer; fwd=stale; fwd-status=404"}}},
	{section: "9111 §4.3.4", level: "MUST", why: "a 304 with another strong validator updates nothing", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, up: `304|ETag: "b"`, want: "miss|502"}}},
	{section: "9111 §4.3.4", level: "SHOULD", why: "one with the same weak validator does", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: W/"a"`, want: "miss"}, {wait: 3, up: `304|ETag: W/"a"|A: 2|Cache-Control: max-age=60`, want: "etag|A: 2"}, {want: "hit|A: 2"}}},
	{section: "9111 §4.3.5", level: "SHOULD", why: "HEAD with the same validators freshens", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"|A: 1|B: 1`, want: "miss"}, {wait: 3, ask: "HEAD", up: `ETag: "a"|A: 2|Cache-Control: max-age=60|Content-Length: 8`, want: "miss|A: 2"},
		{want: "hit|A: 2|B: 1|body=answer 1"}}},
	{section: "9111 §4.3.5", level: "SHOULD", why: "HEAD with another validator makes stale", steps: []step{
		{up: fresh + `|ETag: "a"`, want: "miss"}, {ask: "HEAD|Cache-Control: no-cache", up: `ETag: "b"|` + fresh, want: "miss"}, {want: "miss|200"}}},
	{section: "9111 §4.3.5", level: "SHOULD", why: "HEAD with another length makes stale", steps: []step{
		{up: fresh, want: "miss"}, {ask: "HEAD|Cache-Control: no-cache", up: fresh + "|Content-Length: 9", want: "miss"}, {want: "miss|200"}}},
	{section: "9111 §4.3.5", level: "SHOULD", why: "only 200 does, and what says that nothing is there: not what is about the client", steps: []step{
		{up: fresh, want: "miss"}, {ask: "HEAD|Cache-Control: no-cache", up: "401", want: "miss|401"}, {ask: "HEAD|Cache-Control: no-cache", up: "403", want: "miss|403"},
		{ask: "HEAD|Cache-Control: no-cache", up: "429", want: "miss|429"}, {want: "hit|200"}, {ask: "HEAD|Cache-Control: no-cache", up: "404", want: "miss|404"}, {want: "miss|200"}}},
	{section: "9111 §4.4", level: "MUST", why: "a successful unsafe method invalidates the target", steps: []step{
		{up: fresh, want: "miss"}, {ask: "DELETE", up: "204", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.4", level: "MUST", why: "one with a redirection too, and an unknown method", steps: []step{
		{up: fresh, want: "miss"}, {ask: "POST", up: "303|Location: /x", want: "miss"}, {up: fresh, want: "miss"}, {ask: "M-SEARCH", want: "miss"}, {want: "miss"}}},
	{section: "9111 §4.4", level: "SHOULD", why: "an error doesn't", steps: []step{
		{up: fresh, want: "miss"}, {ask: "PUT", up: "500", want: "miss"}, {ask: "PUT", up: "404", want: "miss"}, {want: "hit"}}},
	{section: "9111 §4.4", level: "MAY", why: "Location and Content-Location of the same origin", steps: []step{
		{ask: "GET /l", up: fresh, want: "miss"}, {ask: "GET /c", up: fresh, want: "miss"},
		{ask: "POST /x", up: "201|Location: /l|Content-Location: http://api.test/c", want: "miss"}, {ask: "GET /l", want: "miss"}, {ask: "GET /c", want: "miss"}}},
	{section: "9111 §4.4", level: "MAY", why: "an origin that is asked under a name of its own, and below a path, names them by those",
		options: []func(*Config){func(c *Config) { c.Upstream.URL = "http://upstream.test/base" }}, steps: []step{
			{ask: "GET /l", up: fresh, want: "miss"}, {ask: "GET /c", up: fresh, want: "miss"}, {ask: "GET /x", up: fresh, want: "miss"},
			{ask: "POST /p", up: "201|Location: http://upstream.test/base/l|Content-Location: /base/c", want: "miss"}, {ask: "GET /l", want: "miss"}, {ask: "GET /c", want: "miss"},
			{ask: "POST /p", up: "201|Location: http://upstream.test/basex/|Content-Location: http://upstream.test/x", want: "miss"}, {ask: "GET /x", want: "hit"}}},
	{section: "9111 §4.4", level: "MUST", why: "not of another", steps: []step{
		{ask: "GET http://evil.test/l", up: fresh, want: "miss"}, {ask: "POST /x", up: "201|Location: http://evil.test/l", want: "miss"}, {ask: "GET http://evil.test/l", want: "hit"}}},
	{section: "9111 §4.4", level: "MUST", why: "all variants go", steps: []step{
		{ask: "Foo: 1", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: 2", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "PUT", want: "miss"},
		{ask: "Foo: 1", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: 2", want: "miss"}}},

	// Fields.
	{section: "9111 §5.1", level: "SHOULD", why: "of an Age that is a list the first member", steps: []step{
		{up: "Cache-Control: max-age=60|Age: 90, 0", want: "miss"}, {want: "miss"}}},
	{section: "9111 §5.1", level: "SHOULD", why: "an Age that isn't a number is ignored", steps: []step{
		{up: "Cache-Control: max-age=60|Age: -90", want: "miss"}, {want: "hit|Age: 0"}}},
	{section: "9111 §5.2", level: "MUST", why: "names in any case", steps: []step{
		{up: "Cache-Control: MAX-age=60", want: "miss"}, {want: "hit"}}},
	{section: "9111 §5.2", level: "MUST", why: "arguments as tokens or quoted", steps: []step{
		{up: `Cache-Control: max-age="60"`, want: "miss"}, {want: "hit"}}},
	{section: "9111 §5.2", level: "MUST", why: "directives go through to the client", steps: []step{
		{up: "Cache-Control: max-age=60, private, foo=bar", want: "miss|Cache-Control: max-age=60, private, foo=bar"}}},
	{section: "9111 §5.2.1.1", level: "SHOULD", why: "request max-age", steps: []step{
		{up: fresh, want: "miss"}, {wait: 5, ask: "Cache-Control: max-age=5", want: "hit"}, {wait: 1, ask: "Cache-Control: max-age=5", want: "miss"}}},
	{section: "9111 §5.2.1.1", level: "SHOULD", why: "whoever names one wants nothing stale", steps: []step{
		{up: "Cache-Control: max-age=2, stale-while-revalidate=60", want: "miss"}, {wait: 3, ask: "Cache-Control: max-age=100", want: "miss"}}},
	{section: "9111 §5.2.1.2", level: "SHOULD", why: "max-stale", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 5, ask: "Cache-Control: max-stale=3", want: "hit|Age: 5"}, {wait: 1, ask: "Cache-Control: max-stale=3", want: "miss"}}},
	{section: "9111 §5.2.1.3", level: "SHOULD", why: "min-fresh", steps: []step{
		{up: "Cache-Control: max-age=60", want: "miss"}, {wait: 5, ask: "Cache-Control: min-fresh=55", want: "hit"}, {ask: "Cache-Control: min-fresh=56", want: "miss"}}},
	{section: "9111 §5.2.1.4", level: "SHOULD", why: "no-cache", steps: []step{
		{up: fresh + `|ETag: "a"`, want: "miss"}, {ask: "Cache-Control: no-cache", up: "304", want: "etag|200"}}},
	{section: "9111 §5.2.1.5", level: "MUST", why: "no-store: the answer isn't kept", steps: []step{
		{ask: "Cache-Control: no-store", up: fresh, want: "miss"}, {want: "miss"}}},
	{section: "9111 §5.2.1.6", level: "MUST", why: "no-transform: nothing is", steps: []step{
		{ask: "Cache-Control: no-transform", up: fresh + "|Content-Encoding: odd", want: "miss|Content-Encoding: odd|up:Cache-Control: no-transform"}, {ask: "Cache-Control: no-transform", want: "hit|Content-Encoding: odd|body=answer 1"}}},
	{section: "9111 §5.2.1.7", level: "SHOULD", why: "only-if-cached: 504 without a usable response", steps: []step{
		{ask: "Cache-Control: only-if-cached", want: "hit|504"}, {up: fresh, want: "miss"}, {ask: "Cache-Control: only-if-cached", want: "hit|200"},
		{ask: `If-Match: "a"|Cache-Control: only-if-cached`, want: "hit|504"}}},
	{section: "9111 §5.2.2.1", level: "MUST", why: "max-age: stale once its age is more", steps: []step{
		{up: "Cache-Control: max-age=5", want: "miss"}, {wait: 4, want: "hit"}, {wait: 2, want: "miss"}}},
	{section: "9111 §5.2.2.2", level: "MUST", why: "must-revalidate: validated once stale, 504 if that can't be", steps: []step{
		{up: `Cache-Control: max-age=2, must-revalidate, stale-while-revalidate=60, stale-if-error=60|ETag: "a"`, want: "miss"}, {wait: 1, want: "hit"},
		{wait: 2, ask: "Cache-Control: max-stale=60", up: "hang up", want: "etag|504"}, {ask: "HEAD", up: "hang up", want: "miss|504"},
		{up: "304", want: "etag|200"}}},
	{section: "9111 §5.2.2.3", level: "SHOULD", why: "must-understand silences no-store where the status is understood", steps: []step{
		{up: "Cache-Control: max-age=60, no-store, must-understand", want: "miss"}, {want: "hit"}}},
	{section: "9111 §5.2.2.4", level: "MUST", why: "no-cache: validated each time", steps: []step{
		{up: `Cache-Control: no-cache|ETag: "a"`, want: "miss"}, {up: "304", want: "etag|200|body=answer 1"}, {up: "304", want: "etag|200"}}},
	{section: "9111 §5.2.2.4", level: "MUST", why: "qualified: the named fields aren't reused", steps: []step{
		{up: `Cache-Control: no-cache="a", max-age=60|A: 1|B: 2`, want: "miss|A: 1"}, {want: "hit|!A|B: 2"}}},
	{section: "9111 §5.2.2.5", level: "MUST", why: "no-store, though it comes second and in capitals", steps: []step{
		{up: "Cache-Control: max-age=60|Cache-Control: NO-STORE", want: "miss"}, {want: "miss"}}},
	{section: "9111 §5.2.2.6", level: "MUST", why: "no-transform: nothing is", steps: []step{
		{up: "Cache-Control: max-age=60, no-transform|Content-Type: image/x", want: "miss"}, {want: "hit|Content-Type: image/x|Cache-Control: max-age=60, no-transform|body=answer 1"}}},
	{section: "9111 §5.2.2.7", level: "MUST", why: "private, though max-age stands beside it", steps: []step{
		{up: "Cache-Control: private, s-maxage=60", want: "miss"}, {want: "miss"}}},
	{section: "9111 §5.2.2.8", level: "MUST", why: "proxy-revalidate is must-revalidate for a shared cache", steps: []step{
		{up: "Cache-Control: max-age=2, proxy-revalidate, stale-if-error=60", want: "miss"}, {wait: 3, up: "500", want: "miss|500"}}},
	{section: "9111 §5.2.2.9", level: "MAY", why: "public: stored though the request had Authorization", steps: []step{
		{ask: "Authorization: x", up: "Cache-Control: public|Last-Modified: -86400", want: "miss"}, {want: "hit"}}},
	{section: "9111 §5.2.2.10", level: "MUST", why: "s-maxage forbids stale", steps: []step{
		{up: "Cache-Control: s-maxage=2", want: "miss"}, {wait: 3, ask: "Cache-Control: max-stale", want: "miss"}}},
	{section: "9111 §5.2.3", level: "MUST", why: "unknown directives are ignored", steps: []step{
		{up: `Cache-Control: foo, max-age=60, bar="no-store, private", baz=1`, want: "miss"}, {want: "hit"}}},
	{section: "9111 §5.3", level: "MUST", why: "an Expires that is no date is past", steps: []step{
		{up: "Expires: 0", want: "miss"}, {want: "miss"}}},
	{section: "9111 §5.3", level: "MUST", why: "Expires counts from Date", steps: []step{
		{up: "Date: +30|Expires: +40", want: "miss"}, {wait: 9, want: "hit"}, {wait: 2, want: "miss"}}},
	{section: "9111 §5.4", level: "SHOULD", why: "Pragma: no-cache without Cache-Control", steps: []step{
		{up: fresh, want: "miss"}, {ask: "Pragma: no-cache", up: fresh, want: "miss"}, {ask: "Pragma: no-cache|Cache-Control: foo", want: "hit"}}},
	{section: "9111 §5.5", level: "MAY", why: "Warning is dropped", steps: []step{
		{up: fresh + "|Warning: 110 - stale", want: "miss|!Warning"}, {want: "hit|!Warning"}}},
	{section: "9111 §7.3", level: "MAY", why: "Set-Cookie isn't shared by a guarded cache", steps: []step{
		{up: fresh + "|Set-Cookie: a=b", want: "miss|Set-Cookie: a=b"}, {want: "miss"}}},
	{section: "9111 §7.3", level: "MAY", why: "but by one that keeps to the letter", options: withCache(func(c *Cache) { c.Cookies = "rfc9111" }), steps: []step{
		{up: fresh + "|Set-Cookie: a=b", want: "miss"}, {want: "hit|Set-Cookie: a=b"}}},

	// Extensions.
	{section: "5861 §3", level: "MAY", why: "stale while it is revalidated, which a later request sees", steps: []step{
		{up: `Cache-Control: max-age=2, stale-while-revalidate=5|ETag: "a"`, want: "miss"}, {wait: 4, up: fresh, want: "swr|body=answer 1"}, {want: "hit|body=answer 2"}}},
	{section: "5861 §3", level: "SHOULD", why: "not beyond the window", steps: []step{
		{up: "Cache-Control: max-age=2, stale-while-revalidate=5", want: "miss"}, {wait: 7, want: "miss"}}},
	{section: "5861 §4", level: "MAY", why: "stale instead of 500, 502, 503, 504 or nothing", steps: []step{
		{up: "Cache-Control: max-age=2, stale-if-error=5", want: "miss"}, {wait: 3, up: "500", want: "miss|200|Age: 3"}, {up: "502", want: "miss|200"}, {up: "503", want: "miss|200"},
		{up: "504", want: "miss|200"}, {up: "hang up", want: "miss|200"}, {up: "501|Cache-Control: no-store", want: "miss|501"}}},
	{section: "5861 §4", level: "SHOULD", why: "not beyond the window", steps: []step{
		{up: "Cache-Control: max-age=2, stale-if-error=5", want: "miss"}, {wait: 7, up: "500", want: "miss|500"}, {up: "hang up", want: "miss|502"}}},
	{section: "5861 §4", level: "MAY", why: "by the request", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, ask: "Cache-Control: stale-if-error=5", up: "500", want: "miss|200"}}},
	{section: "8246 §2", level: "SHOULD", why: "immutable: no renewal while it is fresh", steps: []step{
		{up: "Cache-Control: max-age=100, immutable", want: "miss"}, {wait: 50, want: "hit"}, {wait: 49, want: "hit|body=answer 1"}, {want: "hit|body=answer 1"}}},
	{section: "8246 §2", level: "SHOULD", why: "unless the client orders it", steps: []step{
		{up: `Cache-Control: max-age=100, immutable|ETag: "a"`, want: "miss"}, {ask: "Cache-Control: no-cache", up: "304", want: "etag|200"}}},
	{section: "9110 §6.6.1", level: "MUST", why: "Date is the origin's", steps: []step{
		{up: fresh + "|Date: -10", want: "miss|Date: -10"}, {wait: 5, want: "hit|Date: -15"}}},
	{section: "9110 §6.6.1", level: "MUST", why: "and the moment of arrival where there is none", steps: []step{
		{up: fresh + "|Date: soon", want: "miss|Date: +0"}, {wait: 5, want: "hit|Date: -5"}}},
	{section: "9110 §7.6.2", level: "MUST", why: "OPTIONS with Max-Forwards: answered here at 0, else one less", steps: []step{
		{ask: "OPTIONS|Max-Forwards: 0", want: "hit|200"}, {ask: "OPTIONS|Max-Forwards: 2", want: "miss|up:Max-Forwards: 1"}, {ask: "OPTIONS", want: "miss|up:Max-Forwards: "}, {ask: "GET|Max-Forwards: 2", want: "miss|up:Max-Forwards: 2"}}},
	{section: "9110 §7.6.3", level: "MUST", why: "Via: behind those before", steps: []step{
		{ask: "Via: 1.0 a|Via: 2 b", want: "miss|up:Via: 1.0 a, 2 b, 1.1 optimizer"}}},
	{section: "9110 §13.1.2", level: "MUST", why: "If-None-Match is a list, whose lines are one, the empty ones too", steps: []step{
		{up: fresh + `|ETag: "b"`, want: "miss"}, {ask: `If-None-Match: "a"|If-None-Match: "b"`, want: "hit|304"}, {ask: `If-None-Match: |If-None-Match: "b"`, want: "hit|304"},
		{ask: `If-None-Match: "a"|If-None-Match: "c"`, want: "hit|200"}}},
	{section: "9110 §13.1.2", level: "MUST", why: "a GET with a body isn't answered here, so its conditions go up", steps: []step{
		{ask: `GET|Content-Length: 1|If-None-Match: "b"`, up: "304", want: `etag|304|up:If-None-Match: "b"`}}},
	{section: "9110 §13.1.5", level: "MUST", why: "If-Range that doesn't match: the whole", steps: []step{
		{up: fresh + `|ETag: W/"a"`, want: "miss"}, {ask: `Range: bytes=0-1|If-Range: W/"a"`, want: "hit|200"}, {ask: `Range: bytes=0-1|If-Range: "a"`, want: "hit|200"}}},
	{section: "9110 §13.1.5", level: "MUST", why: "If-Range by a date only if that is strong", steps: []step{
		{up: fresh + "|Last-Modified: -60", want: "miss"}, {ask: "Range: bytes=0-1|If-Range: -60", want: "hit|206"}}},
	{section: "9110 §14.2", level: "MAY", why: "open and suffix ranges, several ignored", steps: []step{
		{up: fresh, want: "miss"}, {ask: "Range: bytes=7-", want: "hit|206|body=1"}, {ask: "Range: BYTES=-1", want: "hit|206|body=1"}, {ask: "Range: bytes=0-0,2-2", want: "hit|200"}}},
	{section: "9110 §15.5.17", level: "SHOULD", why: "416 names the length", steps: []step{
		{up: fresh + `|ETag: "a"|Content-Type: x/y`, want: "miss"}, {ask: "Range: bytes=8-", want: "hit|416|Content-Range: bytes */8|!Cache-Control|!ETag|!Content-Type"}}},
	{section: "9110 §15.5.6", level: "MUST", why: "405 names the methods that are allowed", steps: []step{
		{ask: "TRACE", want: "hit|405|Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}}},
	{section: "9211 §2", level: "MUST", why: "a hit says so, a miss why", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss|Cache-Status: optimizer; fwd=miss; stored"}, {want: "hit|Cache-Status: optimizer; hit"},
		{wait: 3, up: "Cache-Control: no-store", want: "miss|Cache-Status: optimizer; fwd=stale"}, {ask: "POST", want: "miss|Cache-Status: optimizer; fwd=method"}}},
	{section: "9211 §2", level: "MUST", why: "after what caches nearer to the origin said", steps: []step{
		{up: fresh + "|Cache-Status: origin; hit", want: "miss|Cache-Status: origin; hit, optimizer; fwd=miss; stored"}, {want: "hit|Cache-Status: origin; hit, optimizer; hit"}}},
	{section: "9211 §2.3", level: "MAY", why: "fwd-status", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, up: "304", want: "etag|Cache-Status: optimizer; fwd=stale; fwd-status=304; stored"}}},
	{section: "9213 §2.1", level: "MUST", why: "a field that isn't a dictionary is ignored", steps: []step{
		{up: "Cache-Control: no-store|CDN-Cache-Control: max-age=60, &&&", want: "miss"}, {want: "miss"}}},
	{section: "9213 §2.1", level: "MUST", why: "and an empty one", steps: []step{
		{up: "Cache-Control: max-age=60|CDN-Cache-Control: ", want: "miss"}, {want: "hit"}}},
	{section: "9213 §2.1", level: "SHOULD", why: "a value of the wrong type isn't used", steps: []step{
		{up: `Cache-Control: no-store|CDN-Cache-Control: max-age="60"`, want: "miss"}, {want: "miss"}}},
	{section: "9213 §2.2", level: "MUST", why: "it silences Cache-Control and Expires", steps: []step{
		{ask: "GET /1", up: "Cache-Control: no-store|Expires: 0|CDN-Cache-Control: max-age=60", want: "miss"}, {ask: "GET /1", want: "hit"},
		{ask: "GET /2", up: "Cache-Control: max-age=60|Expires: +60|CDN-Cache-Control: none", want: "miss"}, {ask: "GET /2", want: "miss"}}},
	{section: "9213 §2.2", level: "MUST", why: "max-age, must-revalidate, no-store, no-cache, private", steps: []step{
		{ask: "GET /1", up: "Cache-Control: max-age=60|CDN-Cache-Control: max-age=1", want: "miss"}, {ask: "GET /1", wait: 2, want: "miss"},
		{ask: "GET /2", up: "CDN-Cache-Control: max-age=2, must-revalidate", want: "miss"}, {ask: "GET /2", wait: 3, up: "hang up", want: "miss|504"},
		{ask: "GET /3", up: fresh + "|CDN-Cache-Control: no-store", want: "miss"}, {ask: "GET /3", want: "miss"},
		{ask: "GET /4", up: fresh + `|CDN-Cache-Control: no-cache|ETag: "a"`, want: "miss"}, {ask: "GET /4", up: "304", want: "etag"},
		{ask: "GET /5", up: fresh + "|CDN-Cache-Control: private", want: "miss"}, {ask: "GET /5", want: "miss"}}},
	{section: "9213 §2.2", level: "MUST", why: "fields for others are passed on", steps: []step{
		{up: "Cache-Control: max-age=60|Other-Cache-Control: no-store|CDN-Cache-Control: foo, max-age=60", want: "miss"},
		{want: "hit|Other-Cache-Control: no-store|CDN-Cache-Control: foo, max-age=60"}}},
}

// TestRequirements plays every row and prints the sections with their counts.
func TestRequirements(t *testing.T) {
	t.Parallel()
	type count struct{ rows, passed map[string]int }
	var order []string
	counts := map[string]count{}
	t.Run("rows", func(t *testing.T) {
		for _, q := range requirements {
			c, known := counts[q.section]
			if !known {
				c = count{map[string]int{}, map[string]int{}}
				counts[q.section] = c
				order = append(order, q.section)
			}
			c.rows[q.level]++
			if t.Run(q.section+" "+q.level+" "+q.why, func(t *testing.T) { run(t, q.steps, q.options...) }) {
				c.passed[q.level]++
			}
		}
	})
	var table strings.Builder
	levels := []string{"MUST", "SHOULD", "MAY"}
	total := count{map[string]int{}, map[string]int{}}
	for _, section := range append(order, "") {
		c, name := counts[section], "RFC "+section
		if section == "" {
			c, name = total, "all"
		}
		fmt.Fprintf(&table, "%-20s", name)
		for _, level := range levels {
			cell := "."
			if c.rows[level] > 0 {
				cell = fmt.Sprintf("%d/%d", c.passed[level], c.rows[level])
			}
			fmt.Fprintf(&table, "%9s", cell)
			total.rows[level] += c.rows[level]
			total.passed[level] += c.passed[level]
		}
		table.WriteByte('\n')
	}
	t.Logf("rows passed, by section and level\n%-20s%9s%9s%9s\n%s", "", levels[0], levels[1], levels[2], table.String())
}
