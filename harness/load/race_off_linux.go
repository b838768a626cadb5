//go:build !race && linux

package load

func acquired()  {}
func releasing() {}
