package providerid

import (
	"errors"
	"testing"
)

const server = "0077fa3d-32db-4b09-9f5f-30d9e9afb565"

func TestParse(t *testing.T) {
	for _, test := range []struct {
		in      string
		want    string
		foreign bool
	}{
		{in: "upcloud:////" + server, want: server},
		{in: "upcloud:///" + server, want: server},
		{in: "upcloud://" + server, want: server},
		{in: server, want: server},
		{in: "upcloud:////0077FA3D-32DB-4B09-9F5F-30D9E9AFB565", want: server},
		{in: "upcloud://///" + server},
		{in: "upcloud:/" + server, foreign: true},
		{in: "upcloud:////" + server + "/x"},
		{in: "upcloud:////worker-1"},
		{in: "upcloud:////"},
		{in: "upcloud:////0077fa3d32db4b099f5f30d9e9afb565"},
		{in: "upcloud:////urn:uuid:" + server},
		{in: "hcloud://123", foreign: true},
		{in: "aws:///eu-north-1a/i-0123", foreign: true},
		{in: "kind://docker/kind/worker", foreign: true},
		{in: "k3s://worker", foreign: true},
		{in: "worker-1", foreign: true},
		{in: "", foreign: true},
		{in: "{" + server + "}", foreign: true},
	} {
		got, err := Parse(test.in)
		var foreign *ForeignError
		switch {
		case got != test.want:
			t.Errorf("Parse(%q) = %q, %v, want %q", test.in, got, err, test.want)
		case (err == nil) != (test.want != ""):
			t.Errorf("Parse(%q): error %v", test.in, err)
		case errors.As(err, &foreign) != test.foreign:
			t.Errorf("Parse(%q): error %v, foreign %v, want %v", test.in, err, !test.foreign, test.foreign)
		}
	}
}

func TestNew(t *testing.T) {
	if got := New(server); got != "upcloud:////"+server {
		t.Errorf("New = %q: the form that UpCloud's own CCM writes must not change", got)
	}
	if got, err := Parse(New(server)); got != server || err != nil {
		t.Errorf("Parse(New) = %q, %v", got, err)
	}
}
