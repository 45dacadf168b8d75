package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const sdkModule = "github.com/UpCloudLtd/upcloud-go-api/v8"

// areas are the files of the SDK's service package, without _test.go, whose tests and recordings must hold.
var areas = []string{
	"cloud", "account", "server", "server_group", "storage", "network", "ip_address", "load_balancer", "tag", "token",
	"firewall", "file_storage",
}

// sdk is the official SDK's module in the module cache.
type sdk struct {
	dir   string
	tests []liveTest
}

// liveTest is a test of the SDK's that talks to an API: live, or as recorded.
type liveTest struct {
	name      string
	recording string // the name of its recording; empty: the test is live only
}

func (s *sdk) serviceDir() string { return filepath.Join(s.dir, "upcloud", "service") }

func (s *sdk) recordingFile(name string) string {
	return filepath.Join(s.serviceDir(), "fixtures", name+".yaml")
}

func findSDK(ctx context.Context) (*sdk, error) {
	dir, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", sdkModule)
	if err != nil {
		return nil, fmt.Errorf("where is the SDK's module? %w", err)
	}
	s := &sdk{dir: strings.TrimSpace(dir)}
	for _, area := range areas {
		tests, err := liveTests(filepath.Join(s.serviceDir(), area+"_test.go"))
		if err != nil {
			return nil, err
		}
		s.tests = append(s.tests, tests...)
	}
	return s, nil
}

// liveTests finds the tests in a file that talk to an API: those that call the SDK's record, and those that ask for
// credentials. The others bring an API of their own and say nothing about this one.
func liveTests(file string) ([]liveTest, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return nil, err
	}
	var out []liveTest
	for _, decl := range parsed.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		if test := (liveTest{name: f.Name.Name}); test.talks(f.Body) {
			out = append(out, test)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no live tests: has the SDK moved them?", file)
	}
	return out, nil
}

// talks says whether a test's body talks to an API, and takes the name of its recording from it.
func (t *liveTest) talks(body *ast.BlockStmt) (live bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch name, _ := call.Fun.(*ast.Ident); {
		case name == nil:
		case name.Name == "getCredentials":
			live = true
		case name.Name == "record" && len(call.Args) > 1:
			live = true
			if fixture, ok := call.Args[1].(*ast.BasicLit); ok {
				t.recording, _ = strconv.Unquote(fixture.Value)
			}
		}
		return true
	})
	return live
}

// copyTo copies the module, without its recordings: its tests then talk to the API in their place.
func (s *sdk) copyTo(dir string) error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if filepath.Base(filepath.Dir(path)) == "fixtures" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
}

// goTool runs the go command and returns what it writes; what it says on standard error goes into the error.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}
