package main

import (
	"strings"
	"testing"
)

// TestAnswersLikeTheRecordedAPI replays every recording, as make conformance does.
func TestAnswersLikeTheRecordedAPI(t *testing.T) {
	s, err := findSDK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known, err := readKnown()
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := readRecordings(s)
	if err != nil {
		t.Fatal(err)
	}
	shapes, err := shapesOf(recordings)
	if err != nil {
		t.Fatal(err)
	}
	if len(recordings) < 50 {
		t.Errorf("%d recordings: where are the others?", len(recordings))
	}
	for _, r := range recordings {
		t.Run(r.name, func(t *testing.T) {
			differences, err := replay(r, shapes)
			if err != nil {
				t.Fatal(err)
			}
			unknown, _ := known.sort(r.name, differences)
			for _, d := range unknown {
				t.Error(d)
			}
		})
	}
}

// TestADifferenceFails replays a recording that was tampered with.
func TestADifferenceFails(t *testing.T) {
	s, err := findSDK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := readRecordings(s)
	if err != nil {
		t.Fatal(err)
	}
	shapes, err := shapesOf(recordings)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recordings {
		if r.name != "createmodifydeletestorage" {
			continue
		}
		r.Interactions[len(r.Interactions)-1].Response.Code = 418
		differences, err := replay(r, shapes)
		if err != nil {
			t.Fatal(err)
		}
		if len(differences) != 1 || !strings.HasPrefix(differences[0].text, "status 204, recorded 418") {
			t.Errorf("differences %v", differences)
		}
		return
	}
	t.Fatal("the recording is not there")
}
