package main

import "io"

type difference struct{ request, path, text string }

func replayAll(o *options, s *sdk, known *known, out io.Writer) (summary, error) {
	return summary{}, nil
}
