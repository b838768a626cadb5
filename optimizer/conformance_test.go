package optimizer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// conformance holds the categories that the public test suite for HTTP caches asks
// about, with what is expected of this cache: also where the RFC leaves it open, and
// where the safe answer is not the one that counts as optimal there.
var conformance = []struct {
	category, why string
	steps         []step
	options       []func(*Config)
}{
	{category: "cache-control freshness", why: "nothing said, nothing stored", steps: []step{{want: "miss"}, {want: "miss"}}},
	{category: "cache-control freshness", why: "the operator's default, where nothing is said", options: withCache(func(c *Cache) { c.DefaultTTL = new(10 * time.Second) }), steps: []step{
		{want: "miss"}, {wait: 9, want: "hit"}, {wait: 2, want: "miss"}}},
	{category: "cache-control freshness", why: "but not where Last-Modified says something", options: withCache(func(c *Cache) { c.DefaultTTL = new(10 * time.Minute) }), steps: []step{
		{up: "Last-Modified: -100", want: "miss"}, {wait: 11, want: "lm"}}},
	{category: "cache-control freshness", why: "nor a Last-Modified that is no date", options: withCache(func(c *Cache) { c.DefaultTTL = new(10 * time.Minute) }), steps: []step{
		{up: "Last-Modified: then", want: "miss"}, {want: "lm"}}},
	{category: "cache-control freshness", why: "2^31-1 seconds", steps: []step{{up: "Cache-Control: max-age=2147483647", want: "miss"}, {want: "hit"}}},
	{category: "cache-control freshness", why: "2^31 seconds", steps: []step{{up: "Cache-Control: max-age=2147483648", want: "miss"}, {want: "hit"}}},
	{category: "cache-control freshness", why: "more than 64 bits", steps: []step{{up: "Cache-Control: max-age=99999999999999999999", want: "miss"}, {want: "hit"}}},
	{category: "cache-control freshness", why: "older by Age than it may be", steps: []step{{up: "Cache-Control: max-age=3600|Age: 7200", want: "miss"}, {want: "miss"}}},
	{category: "cache-control freshness", why: "older by Date than it may be", steps: []step{{up: "Cache-Control: max-age=3600|Date: -7200", want: "miss"}, {want: "miss"}}},
	{category: "cache-control freshness", why: "a past or invalid Expires beside max-age doesn't count", steps: []step{
		{ask: "GET /1", up: fresh + "|Expires: -7200", want: "miss"}, {ask: "GET /1", want: "hit"}, {ask: "GET /2", up: fresh + "|Expires: 0", want: "miss"}, {ask: "GET /2", want: "hit"}}},
	{category: "cache-control freshness", why: "s-maxage in a line of its own", steps: []step{{up: "Cache-Control: max-age=3600|Cache-Control: s-maxage=1", want: "miss"}, {wait: 2, want: "miss"}}},
	{category: "cache-control freshness", why: "s-maxage beside max-age=0 and a past Expires", steps: []step{{up: "Cache-Control: max-age=0, s-maxage=60|Expires: -10", want: "miss"}, {want: "hit"}}},

	{category: "cache-control parsing", why: "in a quoted string it is no directive", steps: []step{
		{ask: "GET /1", up: `Cache-Control: extension="max-age=3600", max-age=1`, want: "miss"}, {ask: "GET /1", wait: 2, want: "miss"},
		{ask: "GET /2", up: `Cache-Control: max-age=1, extension="max-age=3600"`, want: "miss"}, {ask: "GET /2", wait: 2, want: "miss"}}},
	{category: "cache-control parsing", why: "quoted commas and escapes", steps: []step{
		{up: `Cache-Control: a="x, \", no-store", max-age=60`, want: "miss"}, {want: "hit"}}},
	{category: "cache-control parsing", why: "an open quote hides nothing", steps: []step{{up: `Cache-Control: max-age=60, a="b, no-store`, want: "miss"}, {want: "miss"}}},
	{category: "cache-control parsing", why: "leading zeros", steps: []step{{up: "Cache-Control: max-age=003600", want: "miss"}, {want: "hit"}}},
	{category: "cache-control parsing", why: "empty members", steps: []step{{up: "Cache-Control: ,, max-age=60 ,", want: "miss"}, {want: "hit"}}},
	{category: "cache-control parsing", why: "two that agree", steps: []step{{up: `Cache-Control: max-age=60|Cache-Control: max-age="60"`, want: "miss"}, {want: "hit"}}},

	{category: "expires", why: "in the future", steps: []step{{up: "Expires: +3600", want: "miss"}, {wait: 60, want: "hit|Age: 60"}}},
	{category: "expires", why: "in the past, now, before Date", steps: []step{
		{ask: "GET /1", up: "Expires: -3600", want: "miss"}, {ask: "GET /1", want: "miss"}, {ask: "GET /2", up: "Expires: +0", want: "miss"}, {ask: "GET /2", want: "miss"},
		{ask: "GET /3", up: "Expires: +300|Date: +400", want: "miss"}, {ask: "GET /3", want: "miss"}}},
	{category: "expires", why: "with Age, Date slow or fast", steps: []step{
		{ask: "GET /1", up: "Date: -10|Expires: +10|Age: 25", want: "miss"}, {ask: "GET /1", want: "miss"},
		{ask: "GET /2", up: "Date: +10|Expires: +20|Age: 15", want: "miss"}, {ask: "GET /2", want: "miss"}}},
	{category: "expires", why: "counts from arrival where Date is no date", steps: []step{{up: "Date: foo|Expires: +10", want: "miss"}, {wait: 9, want: "hit"}, {wait: 2, want: "miss"}}},
	{category: "expires", why: "the three forms of a date", steps: []step{
		{ask: "GET /1", up: "Expires: Thu, 18 Aug 2050 02:01:18 GMT", want: "miss"}, {ask: "GET /1", want: "hit"},
		{ask: "GET /2", up: "Expires: Monday, 18-Aug-25 02:01:18 GMT", want: "miss"}, {ask: "GET /2", want: "hit"}, // in the year 2000, where the test's clock stands
		{ask: "GET /3", up: "Expires: Thu Aug 18 02:01:18 2050", want: "miss"}, {ask: "GET /3", want: "hit"},
		{ask: "GET /4", up: "Expires: Monday, 18-Aug-75 02:01:18 GMT", want: "miss"}, {ask: "GET /4", want: "miss"}}}, // 1975
	{category: "expires", why: "two that differ", steps: []step{{up: "Expires: +60|Expires: +70", want: "miss"}, {want: "miss"}}},

	{category: "age parsing", why: "not a number, negative, a fraction: ignored", steps: []step{
		{ask: "GET /1", up: fresh + "|Age: abc", want: "miss"}, {ask: "GET /1", want: "hit"}, {ask: "GET /2", up: fresh + "|Age: -7200", want: "miss"}, {ask: "GET /2", want: "hit"},
		{ask: "GET /3", up: fresh + "|Age: 7200.0", want: "miss"}, {ask: "GET /3", want: "hit"}}},
	{category: "age parsing", why: "of several the first", steps: []step{
		{ask: "GET /1", up: fresh + "|Age: 7200,0", want: "miss"}, {ask: "GET /1", want: "miss"}, {ask: "GET /2", up: fresh + "|Age: 7200|Age: 0", want: "miss"}, {ask: "GET /2", want: "miss"},
		{ask: "GET /3", up: fresh + "|Age: 0, 0", want: "miss"}, {ask: "GET /3", want: "hit"}, {ask: "GET /4", up: fresh + "|Age: 7200, 7200", want: "miss"}, {ask: "GET /4", want: "miss"}}},
	{category: "age parsing", why: "overlong", steps: []step{{up: fresh + "|Age: 99999999999999999999", want: "miss"}, {want: "miss"}}},

	{category: "cache-control in requests", why: "max-age=0 and max-age=1", steps: []step{
		{up: fresh, want: "miss"}, {wait: 3, ask: "Cache-Control: max-age=0", up: fresh, want: "miss"}, {wait: 3, ask: "Cache-Control: max-age=1", want: "miss"}}},
	{category: "cache-control in requests", why: "max-age against Age", steps: []step{{up: fresh + "|Age: 1800", want: "miss"}, {ask: "Cache-Control: max-age=600", want: "miss"}}},
	{category: "cache-control in requests", why: "max-stale against Age, of what was stale on arrival and can be validated", steps: []step{
		{up: `Cache-Control: max-age=1500|Age: 2000|ETag: "a"`, want: "miss"}, {ask: "Cache-Control: max-stale=1000", want: "hit"}, {ask: "Cache-Control: max-stale=100", up: "304", want: "etag"}}},
	{category: "cache-control in requests", why: "and of what can't be", steps: []step{
		{up: "Cache-Control: max-age=1500|Age: 2000", want: "miss"}, {ask: "Cache-Control: max-stale=1000", want: "hit|Age: 2000"}, {ask: "Cache-Control: max-stale=100", want: "miss"}}},
	{category: "cache-control in requests", why: "min-fresh against Age", steps: []step{{up: "Cache-Control: max-age=1500|Age: 1000", want: "miss"}, {ask: "Cache-Control: min-fresh=1000", want: "miss"}}},
	{category: "cache-control in requests", why: "no-store isn't answered from the store", steps: []step{
		{up: fresh, want: "miss"}, {ask: "Cache-Control: no-store", want: "miss|body=answer 2|Cache-Status: optimizer; fwd=request"}, {ask: "Cache-Control: no-store", up: "hang up", want: "miss|200"}, {want: "hit|body=answer 1"}}},
	{category: "cache-control in requests", why: "no-cache by Last-Modified", steps: []step{{up: fresh + "|Last-Modified: -60", want: "miss"}, {ask: "Cache-Control: no-cache", up: "304", want: "lm|200"}}},

	{category: "cache-control in responses", why: "an older stored response doesn't come back after no-store", steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "Cache-Control: no-store", want: "miss"}, {want: "miss"}}},
	{category: "cache-control in responses", why: "must-revalidate while fresh", steps: []step{{up: `Cache-Control: max-age=60, must-revalidate|ETag: "a"`, want: "miss"}, {want: "hit"}}},
	{category: "cache-control in responses", why: "several fields of a qualified no-cache", steps: []step{
		{up: `Cache-Control: no-cache="a, b"|Cache-Control: max-age=60|A: 1|B: 2|C: 3`, want: "miss|A: 1"}, {want: "hit|!A|!B|C: 3"}}},
	{category: "cache-control in responses", why: "a qualified directive that is malformed is one without fields", steps: []step{
		{up: `Cache-Control: max-age=60, private="a b"|A: 1`, want: "miss"}, {want: "miss"}}},

	{category: "cache-control in requests", why: "an empty line hides nothing", steps: []step{
		{ask: "GET /1", up: fresh, want: "miss"}, {ask: "GET /1|Cache-Control: |Cache-Control: no-cache", want: "miss"},
		{ask: "GET /2", up: fresh, want: "miss"}, {ask: "GET /2|Pragma: |Pragma: no-cache", want: "miss"},
		{ask: "GET /3", up: fresh, want: "miss"}, {ask: `GET /3|If-Match: |If-Match: "b"`, want: "miss"}}},
	{category: "query", why: "parameters that make no difference, and their order", options: withCache(func(c *Cache) { c.IgnoreQuery, c.SortQuery = []string{"utm_*", "fbclid"}, true }), steps: []step{
		{ask: "GET /?b=2&utm_source=x&a=1&a=0", up: fresh, want: "miss|query: a=1&a=0&b=2"}, {ask: "GET /?a=1&fbclid=y&a=0&b=2", want: "hit"}, {ask: "GET /?a=0&a=1&b=2", want: "miss"},
		{ask: "GET /?utm_source=x", up: fresh, want: "miss|query: "}, {want: "hit"}, {ask: "GET /?utm%5Fsource=x", want: "miss|query: utm%5Fsource=x"},
		{ask: "POST /?b=2&utm_source=x&a=1&a=0", up: "Location: /?utm_source=z", want: "miss|query: b=2&utm_source=x&a=1&a=0"}, {ask: "GET /?a=1&a=0&b=2", up: fresh, want: "miss"}, {want: "miss"}}},
	{category: "query", why: "no difference is made by default", steps: []step{{ask: "GET /?a&b", up: fresh, want: "miss"}, {ask: "GET /?b&a", want: "miss"}}},

	{category: "cache-control in responses", why: "Connection can't take it away", steps: []step{
		{up: "Connection: Cache-Control|Cache-Control: no-store|Last-Modified: -86400", want: "miss"}, {want: "miss"}}},

	{category: "pragma", why: "unknown in a request", steps: []step{{up: fresh, want: "miss"}, {ask: "Pragma: foo", want: "hit"}}},
	{category: "pragma", why: "in a response nothing beside Cache-Control", steps: []step{{up: fresh + "|Pragma: no-cache", want: "miss"}, {want: "hit"}}},
	{category: "pragma", why: "in a response no heuristics", steps: []step{{up: "Last-Modified: -86400|Pragma: no-cache", want: "miss"}, {want: "lm"}}},

	{category: "heuristic", why: "errors marked public", steps: []step{{up: "599|Cache-Control: public|Last-Modified: -86400", want: "miss|599"}, {want: "hit|599"}}},
	{category: "heuristic", why: "a change today isn't stable for long", steps: []step{{up: "Last-Modified: -5", want: "miss"}, {wait: 1, want: "lm"}}},
	{category: "heuristic", why: "Last-Modified ahead of Date", steps: []step{{up: "Last-Modified: +60", want: "miss"}, {want: "lm"}}},
	{category: "heuristic", why: "a day at most", steps: []step{{up: "Last-Modified: -86400000", want: "miss"}, {wait: 86399, want: "hit"}, {wait: 1, want: "lm"}}},

	{category: "status", why: "must-understand with no-store, understood or not", steps: []step{
		{ask: "GET /1", up: "Cache-Control: max-age=60, no-store, must-understand", want: "miss"}, {ask: "GET /1", want: "hit"},
		{ask: "GET /2", up: "599|Cache-Control: max-age=60, no-store, must-understand", want: "miss"}, {ask: "GET /2", want: "miss"}}},

	{category: "stale", why: "the upstream hangs up: stale", steps: []step{{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "hang up", want: "miss|200|body=answer 1"}}},
	{category: "stale", why: "not for longer than is configured", options: withCache(func(c *Cache) { c.StaleWhenDisconnected = new(time.Duration(0)) }), steps: []step{
		{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "hang up", want: "miss|502"}}},
	{category: "stale", why: "nor than the response names", steps: []step{{up: "Cache-Control: max-age=2, stale-if-error=1", want: "miss"}, {wait: 4, up: "hang up", want: "miss|502"}}},
	{category: "stale", why: "503 is an answer", steps: []step{{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, up: "503", want: "miss|503"}}},
	{category: "stale", why: "the request's stale-if-error ends", steps: []step{{up: `Cache-Control: max-age=1|ETag: "a"`, want: "miss"}, {wait: 4, ask: "Cache-Control: stale-if-error=1", up: "500", want: "etag|500"}}},
	{category: "stale", why: "what replaces it in the background counts at once", steps: []step{
		{up: `Cache-Control: max-age=1, stale-while-revalidate=4|ETag: "a"`, want: "miss"}, {wait: 3, up: `Cache-Control: no-cache|ETag: "b"`, want: "swr"}, {wait: 3, up: "304", want: `etag|up:If-None-Match: "b"`}}},

	{category: "authorization", why: "a stored public response is for everybody", steps: []step{{ask: "Authorization: x", up: "Cache-Control: public, max-age=60", want: "miss"}, {ask: "Authorization: y", want: "hit"}}},
	{category: "authorization", why: "a request with it may use what was stored without", steps: []step{{up: fresh, want: "miss"}, {ask: "Authorization: y", want: "hit"}}},

	{category: "cookies", why: "a request with Cookie may use what was stored without", steps: []step{{up: fresh, want: "miss"}, {ask: "Cookie: a=b", want: "hit"}}},
	{category: "cookies", why: "what a request with Cookie brought isn't shared unless it says so", steps: []step{
		{ask: "GET /1|Cookie: a=b", up: fresh, want: "miss"}, {ask: "GET /1", want: "miss"}, {ask: "GET /2|Cookie: a=b", up: "Cache-Control: public, max-age=60", want: "miss"}, {ask: "GET /2", want: "hit"}}},
	{category: "cookies", why: "or varies by it: then it is for requests with the same", steps: []step{
		{ask: "Cookie: a=b", up: fresh + "|Vary: Cookie", want: "miss"}, {ask: "Cookie: a=b", want: "hit"}, {ask: "Cookie: a=c", up: fresh + "|Vary: Cookie", want: "miss"},
		{ask: "Cookie: a=b|Cookie: a=c", up: fresh + "|Vary: Cookie", want: "miss"}, {up: fresh + "|Vary: Cookie", want: "miss"}, {want: "hit|body=answer 5"}, {ask: "Cookie: a=c", want: "hit|body=answer 3"}}},
	{category: "cookies", why: "Set-Cookie, if it is to be left out", steps: []step{{up: `Cache-Control: max-age=60, no-cache="Set-Cookie"|Set-Cookie: a=b`, want: "miss|Set-Cookie: a=b"}, {want: "hit|!Set-Cookie"}}},

	{category: "vary", why: "three fields, one of them absent", steps: []step{
		{ask: "Foo: 1|Baz: 3", up: fresh + "|Vary: Foo, Bar, Baz", want: "miss"}, {ask: "Baz: 3|Foo: 1", want: "hit"}, {ask: "Foo: 1|Bar: 2|Baz: 3", want: "miss"}}},
	{category: "vary", why: "others don't count", steps: []step{{ask: "Foo: 1|Other: 2", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: 1|Other: 3", want: "hit"}}},
	{category: "vary", why: "Accept-Language in another case and spacing", steps: []step{
		{ask: "Accept-Language: en, de", up: fresh + "|Vary: Accept-Language", want: "miss"}, {ask: "Accept-Language:  eN ,  De", want: "hit"}}},
	{category: "vary", why: "space that may be a part of the value", steps: []step{
		{ask: `Foo: "a, b"`, up: fresh + "|Vary: Foo", want: "miss"}, {ask: `Foo: "a,b"`, up: fresh + "|Vary: Foo", want: "miss"},
		{ask: "Foo: a  b", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: a b", up: fresh + "|Vary: Foo", want: "miss"}, {ask: "Foo: a  b", want: "hit|body=answer 3"}}},
	{category: "vary", why: "a field that the upstream doesn't see makes no difference", options: withCache(func(c *Cache) { c.ForwardHeaders = []string{"accept", "X-Ok"} }), steps: []step{
		{ask: "Accept: a|X-Ok: 1|Foo: 1|Cookie: c=d", up: "Cache-Control: public, max-age=60|Vary: Accept, Foo", want: "miss|up:Accept: a|up:X-Ok: 1|up:Foo: |up:Cookie: c=d"},
		{ask: "Accept: a|Foo: 2", want: "hit"}, {ask: "Accept: b|Foo: 2", want: "miss"}, {ask: "HEAD /h|Foo: 1", want: "miss|up:Foo: "}, {ask: "POST|Foo: 1", want: "miss|up:Foo: 1"}}},
	{category: "vary", why: "its order may be what the upstream goes by", steps: []step{
		{ask: "Accept-Language: en, de", up: fresh + "|Vary: Accept-Language", want: "miss"}, {ask: "Accept-Language: de, en", up: fresh + "|Vary: Accept-Language", want: "miss"}}},
	{category: "vary", why: "a response that doesn't vary replaces those that did", steps: []step{
		{ask: "Foo: 1", up: "Cache-Control: max-age=1|Vary: Foo", want: "miss"}, {wait: 2, ask: "Foo: 1", up: fresh, want: "miss"}, {ask: "Foo: 2", want: "hit"}}},

	{category: "conditional", why: "without a stored response the whole is fetched, and the condition evaluated here", steps: []step{
		{ask: `If-None-Match: "a"`, up: fresh + `|ETag: "a"`, want: "miss|304"}, {want: "hit|200"}}},
	{category: "conditional", why: "what isn't kept is validated by its client", steps: []step{
		{up: `Cache-Control: private|ETag: "a"`, want: "miss"}, {ask: `If-None-Match: "a"`, up: `304|Cache-Control: private|ETag: "a"`, want: `etag|304|ETag: "a"`}}},
	{category: "conditional", why: "an empty If-None-Match is one", steps: []step{{up: fresh + "|Last-Modified: -60", want: "miss"}, {ask: "If-None-Match: |If-Modified-Since: +0", want: "hit|200"}}},
	{category: "conditional", why: "without quotes it is no entity tag", steps: []step{{up: fresh + `|ETag: "a"`, want: "miss"}, {ask: "If-None-Match: a", want: "hit|200"}}},
	{category: "conditional", why: "any", steps: []step{{up: fresh, want: "miss"}, {ask: "If-None-Match: *", want: "hit|304"}}},
	{category: "conditional", why: "the last of a list, and with bytes beyond ASCII", steps: []step{{up: fresh + `|ETag: "ü"`, want: "miss"}, {ask: `If-None-Match: "b,c", "ü"`, want: "hit|304"}}},
	{category: "conditional", why: "after validation", steps: []step{{up: "Cache-Control: max-age=2|Last-Modified: -60", want: "miss"}, {wait: 3, ask: "If-Modified-Since: -10", up: "304", want: "lm|304"}}},
	{category: "conditional", why: "in the form of RFC 850", steps: []step{
		{up: fresh + "|Last-Modified: Thu, 04 Nov 1999 08:49:37 GMT", want: "miss"}, {ask: "If-Modified-Since: Friday, 05-Nov-99 08:49:37 GMT", want: "hit|304"}}},
	{category: "conditional", why: "another variant's tag isn't sent", steps: []step{
		{ask: "Foo: 1", up: fresh + `|ETag: "a"|Vary: Foo`, want: "miss"}, {ask: "Foo: 2", want: "miss"}}},

	{category: "304", why: "what it leaves out stays", steps: []step{
		{up: "Cache-Control: max-age=2|Last-Modified: -60|A: 1", want: "miss"}, {wait: 3, up: "304", want: "lm|A: 1"}, {want: "hit|A: 1"}}},
	{category: "304", why: "several lines of a field", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"|A: 1|A: 2`, want: "miss"}, {wait: 3, up: `304|ETag: "a"|A: 3`, want: "etag|A: 3"}}},
	{category: "304", why: "no-store in it ends the storing", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, up: "304|Cache-Control: no-store", want: "etag|200"}, {want: "miss"}}},
	// §4.3.4 would have it freshen what is stored. But what has become one for members only
	// would then live on for everybody, by the members' requests (§3.5).
	{category: "304", why: "to a request with credentials it renews nothing for others, unless it says so", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, ask: "Authorization: x", up: `304|ETag: "a"|A: 2|Cache-Control: max-age=60`, want: "etag|200"},
		{ask: "Cookie: a=b", up: `304|ETag: "a"`, want: "etag|200"}, {up: "401", want: "etag|401"},
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, ask: "Authorization: x", up: `304|ETag: "a"|Cache-Control: max-age=60, public`, want: "etag|200"}, {want: "hit"}}},
	{category: "304", why: "without conditions it is an error", steps: []step{{up: "304", want: "miss|502"}}},

	{category: "head", why: "answered from a stored GET", steps: []step{{up: fresh + "|A: 1", want: "miss"}, {ask: "HEAD", want: "hit|200|A: 1"}}},
	{category: "head", why: "not stored itself", steps: []step{{ask: "HEAD", up: fresh, want: "miss"}, {want: "miss|body=answer 2"}}},
	{category: "head", why: "written through when stale, and keeps fields that it doesn't bring", steps: []step{
		{up: "Cache-Control: max-age=2|A: 1|B: 1", want: "miss"}, {wait: 3, ask: "HEAD", up: "Cache-Control: max-age=60|A: 2", want: "miss"}, {want: "hit|A: 2|B: 1|body=answer 1"}}},
	{category: "head", why: "410 ends what is stored", steps: []step{{up: "Cache-Control: max-age=2", want: "miss"}, {wait: 3, ask: "HEAD", up: "410|" + fresh, want: "miss|410"}, {want: "miss|200"}}},
	{category: "head", why: "500 says nothing of it", steps: []step{{up: fresh, want: "miss"}, {ask: "HEAD|Cache-Control: no-cache", up: "500", want: "miss|500"}, {want: "hit"}}},

	{category: "partial", why: "a range isn't stored, and what it asks for isn't lost", steps: []step{
		{ask: "Range: bytes=-5", up: "206|" + fresh + "|Content-Range: bytes 3-7/8|body=wer 1", want: "miss|206|up:Range: bytes=-5"}, {want: "miss|200"}}},
	{category: "partial", why: "of a stale response the whole is validated", steps: []step{
		{up: `Cache-Control: max-age=2|ETag: "a"`, want: "miss"}, {wait: 3, ask: "Range: bytes=0-1", up: "304", want: "etag|206|body=an"}}},
	{category: "partial", why: "backwards, other units, not numbers: the whole", steps: []step{
		{up: fresh, want: "miss"}, {ask: "Range: bytes=3-1", want: "hit|200"}, {ask: "Range: lines=0-1", want: "hit|200"}, {ask: "Range: bytes=a-b", want: "hit|200"}, {ask: "Range: bytes=-", want: "hit|200"}}},
	{category: "partial", why: "beyond the end", steps: []step{{up: fresh, want: "miss"}, {ask: "Range: bytes=6-99999999999999999999", want: "hit|206|Content-Range: bytes 6-7/8|body= 1"}, {ask: "Range: bytes=-0", want: "hit|416"}}},

	{category: "other", why: "Age goes on from the upstream's", steps: []step{{up: fresh + "|Age: 30", want: "miss|Age: 30"}, {wait: 3, want: "hit|Age: 33"}}},
	{category: "other", why: "Expires is left alone", steps: []step{{up: "Expires: +60", want: "miss"}, {wait: 9, want: "hit|Expires: +51"}}},
	{category: "other", why: "POST isn't stored, though Content-Location names the target", steps: []step{{ask: "POST /p", up: fresh + "|Content-Location: /p", want: "miss"}, {ask: "GET /p", want: "miss"}}},
	{category: "other", why: "Content-Disposition is nothing special", steps: []step{{up: fresh + "|Content-Disposition: attachment; filename=x", want: "miss"}, {want: "hit"}}},
}

// invalidValues are values of max-age that no cache may take for a lifetime.
var invalidValues = []string{"-3600", "3600.0", "3600.5", "a3600", "3600a", "'3600'", " 3600", `"3600`, `""`, "", "0x10", "+3600", "3 600", "٣٦٠٠", "1e3"}

// invalidDates are values of Expires that are in the past, because they are no dates.
var invalidDates = []string{
	"", "0", "-1", "soon", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 2050 02:01:18 +0000", "Thu, 18 Aug 2050 02:01:18", "Thu, 18 Aug 50 02:01:18 GMT", "Thu 18 Aug 2050 02:01:18 GMT",
	"Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT", "Thu, 18 Aug 2050 2:01:18 GMT", "Thu, 18 Aug 2050 02:01:18.5 GMT",
	"Thu, 32 Aug 2050 02:01:18 GMT", "Thu, 18 Aug 2050 25:01:18 GMT", "2050-08-18T02:01:18Z", "Thu, 18 Aug 2050 02:01:18 GMT, Fri, 19 Aug 2050 02:01:18 GMT", "18 Aug 2050 02:01:18 GMT",
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, row := range conformance {
		t.Run(row.category+": "+row.why, func(t *testing.T) { run(t, row.steps, row.options...) })
	}
	once := func(name, up string, then step) {
		t.Run(name, func(t *testing.T) { run(t, []step{{up: up, want: "miss"}, then}) })
	}
	for _, directive := range []string{"max-age=", "s-maxage="} {
		for _, v := range invalidValues {
			once("cache-control parsing: "+directive+v, "Cache-Control: "+directive+v, step{want: "miss"})
		}
	}
	for _, cc := range []string{"max-age =3600", "max-age = 3600", "max-age=1800, max-age=1", "max-age=1, max-age=1800", "max-age:3600", "max_age=3600", `"max-age"=3600`} {
		once("cache-control parsing: "+cc, "Cache-Control: "+cc, step{wait: 2, want: "miss"})
	}
	for _, date := range invalidDates {
		once("expires: "+date, "Expires: "+date, step{want: "miss"})
	}
	for _, status := range []int{200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 499, 500, 501, 502, 503, 504, 599} {
		once(fmt.Sprintf("status: %d with a lifetime", status), fmt.Sprintf("%d|%s", status, fresh), step{want: fmt.Sprintf("hit|%d", status)})
		once(fmt.Sprintf("status: %d that is stale", status), fmt.Sprintf("%d|Expires: -5000|Last-Modified: -100000", status), step{want: "lm"})
		heuristic := step{want: "miss"}
		switch status {
		case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
			heuristic.want = "hit"
		}
		once(fmt.Sprintf("heuristic: %d", status), fmt.Sprintf("%d|Last-Modified: -86400", status), heuristic)
	}
	for _, vary := range []string{"*", "*, *", ", *", "*, Foo", "Foo, *", "Foo|Vary: *", "|Vary: *", "Foo Bar", "é", "Range", "X-Forwarded-For"} {
		once("vary parsing: "+vary, fresh+"|Vary: "+vary, step{want: "miss"})
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "M-SEARCH"} {
		for name, after := range map[string]step{"POST|201": {want: "miss"}, "500": {want: "hit"}} {
			up := strings.TrimPrefix(name, "POST|")
			t.Run("invalidation: "+method+" answered with "+up, func(t *testing.T) {
				run(t, []step{{up: fresh, want: "miss"}, {ask: method, up: up, want: "miss"}, after})
			})
		}
		for _, field := range []string{"Location", "Content-Location"} {
			t.Run("invalidation: "+method+" and "+field, func(t *testing.T) {
				run(t, []step{{ask: "GET /t", up: fresh, want: "miss"}, {ask: method + " /x", up: "201|" + field + ": t", want: "miss"}, {ask: "GET /t", want: "miss"}})
			})
		}
	}
	for _, field := range []string{
		"Test-Header", "X-Test-Header", "Content-Foo", "X-Content-Foo", "Content-Location", "Content-MD5", "Content-Security-Policy", "Content-Type", "Clear-Site-Data", "Public-Key-Pins",
		"Set-Cookie2", "X-Frame-Options", "X-XSS-Protection", "Strict-Transport-Security", "WWW-Authenticate", "Link",
	} {
		once("stored: "+field, fresh+"|"+field+": a", step{want: "hit|" + field + ": a"})
		t.Run("304 updates "+field, func(t *testing.T) {
			run(t, []step{
				{up: `Cache-Control: max-age=2|ETag: "a"|` + field + ": a", want: "miss|" + field + ": a"},
				{wait: 3, up: `304|ETag: "a"|` + field + ": b", want: "etag|" + field + ": b"}, {want: "hit|" + field + ": b"},
			})
		})
	}
	for _, field := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade", "Trailer"} {
		once("not stored: "+field, fresh+"|"+field+": a", step{want: "hit|!" + field})
	}
}
