package driver_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// knownDefects are mistakes that drivers for block storage have been seen to make, on UpCloud and elsewhere, and the tests that
// keep this one from making them. Who removes or renames such a test has to say here what stands for it.
var knownDefects = []struct {
	defect string
	tests  []string // of the packages in testedIn
}{
	{"a volume on a stopped server can never be detached",
		[]string{"TestControllerUnpublishFromAStoppedServer", "TestPublishAndUnpublishInEveryStateOfTheServer", "TestVolumesComeAndGoOnAStoppedServer"}},
	{"a server that is not found, or has another name by now, counts as detached while the volume is attached",
		[]string{"TestControllerUnpublishByHostName", "TestDetachIsNeverClaimedWhileTheStorageIsAttached", "TestDetachFromADeletedServer"}},
	{"an empty node ID detaches nothing, and is told as done",
		[]string{"TestControllerUnpublishEverywhere", "TestDetachFromEveryServer"}},
	{"a crash or a deadline between copy and growth strands a small copy and the claim for ever",
		[]string{"TestCrashPoints", "TestDeadlineDuringTheCopyIsGoneOnFromByAFreshProcess", "TestACopyThatCannotBeFinishedIsGoneOnWith",
			"TestAnUnfinishedCopyOutlivesItsSource"}},
	{"requests at once, or of two processes, make several disks of one name, which then block the claim",
		[]string{"TestTwentyIdenticalRequestsAreOne", "TestTwentyIdenticalCreationsMakeOneStorage", "TestOfTwoNewVolumesOfANameOneIsKept",
			"TestLostAnswersMakeNoSecondStorage"}},
	{"a disk, backup or template of somebody else that has the title is taken for the volume",
		[]string{"TestAForeignDiskOfTheSameTitleIsLeftAlone", "TestClustersDoNotFindEachOthersVolumes", "TestOnlyVolumesOfTheNameAreFound",
			"TestWhatMayBeSomethingElseIsNotTakenOver"}},
	{"a controller that was stopped for a while, or whose network was, changes the account when another is the leader",
		[]string{"TestTheControllerChangesTheAccountForSidecarsThatLeadOnly", "TestChangesDependOnTheLeaseOfTheirSidecar",
			"TestChangesAreRefusedWhileTheAPIServerIsOutOfReach", "TestAnAnswerOfLongAgoIsNotBelieved",
			"TestALeaseThatIsAboutToEndPermitsNothing", "TestWhatIsNotDeliveredSoonIsTakenBack"}},
	{"a snapshot whose name people chose takes over, and deletes, backups that they made by hand; a growth deletes backups by their title",
		[]string{"TestASnapshotOfAChosenNameLeavesBackupsOfThatTitleAlone", "TestExpandDeletesNoBackups"}},
	{"a snapshot that is asked for once never gets its labels, so that copies of an encrypted volume are made that no node can use",
		[]string{"TestASnapshotThatIsAskedForOnceGetsItsLabelsWhenItIsCopied", "TestASnapshotThatIsAskedForOnceGetsItsLabelsWhenItIsListed"}},
	{"two volumes of one name that people chose share one storage, and the deletion of one takes the data of the other",
		[]string{"TestAVolumeInUseIsNoResultOfAnotherRequestOfItsChosenName", "TestAVolumeOfAUniqueNameIsFoundAgainThoughItIsInUse",
			"TestAVolumeOfAChosenNameIsNotAttachedWithoutItsLabel"}},
	{"a volume that was handed over to another cluster is deleted on the strength of an old look, or of one without the cluster's UID",
		[]string{"TestVolumeThatWasHandedOverIsNotDeleted", "TestVolumeSeenBeforeTheUIDWasKnownIsLookedAtAgain"}},
	{"of several servers with one host name the first gets the disk",
		[]string{"TestPublishByHostName"}},
	{"a detachment by an address read earlier takes away another disk",
		[]string{"TestDetachTakesTheAddressOfNow", "TestTheAnswerToADetachmentIsChecked"}},
	{"a detachment that the API throttled is repeated, and takes away the disk that has come to the address since",
		[]string{"TestThrottledDetachmentLeavesWhatCameToItsAddress", "TestThrottledDetachmentLeavesALaterAttachmentOfTheVolume",
			"TestTransportSendsWhatNamesAPlaceOnce", "TestTransportSendsNothingOnTheStrengthOfAnOldLook"}},
	{"two controllers, one of which its callers left, undo each other's work, or make a volume or snapshot twice",
		[]string{"TestTwoCopiesInEveryOrder", "TestRandomSequences"}},
	{"a repeated call returns what its former try saw before it came",
		[]string{"TestRetryOfALeftCallLooksAgain"}},
	{"a volume whose storage failed is reported as healthy",
		[]string{"TestVolumeWhoseStorageFailedIsAbnormal"}},
	{"what a former leader began goes on against its successor: a disk is detached from under a mounted filesystem, or attached to a server that does not want it any more",
		[]string{"TestADetachmentThatWasLeftTakesNoLaterAttachmentAway", "TestAnAttachmentThatWasLeftDoesNotComeAfterItsDetachment",
			"TestWhatWasLeftIsNotAskedForAgain", "TestTransportSendsNoChangeForWorkThatWasLeft"}},
	{"a growth that failed is told as done",
		[]string{"TestExpandNeverSwallowsAnError"}},
	{"sizes are cut to whole GiB: the volume is smaller than asked for, and the answer says otherwise",
		[]string{"TestCreateVolumeSizes", "TestExpandOnlineAndOffline"}},
	{"the limit of a capacity range is exceeded, and the answer says otherwise",
		[]string{"TestCopySizesFollowTheirSource", "TestCreateVolumeRefusesBadRequests", "TestExpandRefusesWhatCannotBe"}},
	{"a copy of a raw block volume, or of a disk without partitions, cannot be made larger",
		[]string{"TestNoGrowthUsesTheResizingOfFilesystems", "TestRestoreAndCloneAlsoToALargerSize"}},
	{"each growth leaves a backup behind, which is paid for and listed as a snapshot",
		[]string{"TestNoGrowthUsesTheResizingOfFilesystems", "TestResizeBackupsAreNoSnapshots"}},
	{"one foreign zone among those a volume may be in makes the request fail",
		[]string{"TestCreateVolumeChoosesAZone", "TestCreateVolumeFindsTheVolumeInAnyOfTheZones"}},
	{"a volume that is there is told without its zone, or though it is unlike the one asked for, or not ready",
		[]string{"TestCreateVolumeMakesWhatWasAskedFor", "TestCreateVolumeRefusesAnotherVolumeOfTheSameName", "TestCopiesAreRefusedThatAreNotThoseAskedFor",
			"TestAVolumeThatIsStillBeingMadeIsNotTold", "TestAVolumeGrownSinceIsStillTheOneAskedFor"}},
	{"errors have codes that Kubernetes draws wrong conclusions from",
		[]string{"TestStatusError", "TestEveryCodeHasItsKind", "TestAPIErrorsHaveTheirCodes", "TestDeleteVolume", "TestControllerPublishErrors",
			"TestWhatIsGoneIsNotFoundAndFineToBeRidOf", "TestOnlyDisksAreVolumes"}},
	{"a growth past the account's limit cannot be taken back, as its code says that it may still be going on",
		[]string{"TestGrowthPastTheLimitOfTheAccountIsOutOfRange", "TestEveryErrorHasItsCodeInEveryRPC"}},
	{"a look that is refused, or a refusal after something was made, lets a sidecar forget what there is",
		[]string{"TestRefusalIsFinalOnlyWhereNothingCanHaveBeenMade", "TestEveryKindOfErrorIsInTheTable"}},
	{"a StorageClass of UpCloud's own driver, with fsType, is refused, or a typing error in a class gets no hint",
		[]string{"TestParametersOfTheSidecarsAreTaken", "TestUnknownParameterNamesTheOneMeant"}},
	{"a full server is not told as RESOURCE_EXHAUSTED, so that Kubernetes does not count anew",
		[]string{"TestControllerPublishToAFullServer", "TestAFullServerIsExhausted"}},
	{"the number of volumes that a server takes is a constant that forgets other disks and network interfaces",
		[]string{"TestRoomForVolumes", "TestControllerPublishToAFullServer"}},
	{"lists never end, skip entries while others come and go, or a bad token ends the process",
		[]string{"TestVolumePagesStayRightWhileVolumesComeAndGo", "TestSnapshotPagesStayRightWhileSnapshotsComeAndGo",
			"TestBadPagesAreRefusedBeforeTheAccountIsListed", "TestPanicIsInternal"}},
	{"a volume is listed as a snapshot, or a snapshot is used as a volume",
		[]string{"TestOnlyBackupsAreSnapshots", "TestOnlyDisksAreVolumes", "TestCopiesAreRefusedThatAreNotThoseAskedFor"}},
	{"a backup, a template or a CD-ROM whose UUID is given as a volume's is deleted or taken out of its server",
		[]string{"TestUUIDOfAnotherTypeIsRefusedByEveryRPC", "TestSystemDiskOfAServerIsNeitherDeletedNorTakenAway",
			"TestBootDiskIsNotUnpublished", "TestDeletionLooksOnlyAtVolumesNotSeenBefore"}},
	{"a PersistentVolume that names any disk of the account is enough to delete, grow, modify, copy or detach it",
		[]string{"TestOriginOfAStorageDecidesWhatMayBeDoneToIt", "TestOriginOfABackupDecidesWhatMayBeDoneToIt",
			"TestSystemDiskOfTheNodeIsRefusedByEveryRPC", "TestDiskAttachedByHandIsNotPublished",
			"TestDiskAttachedByHandIsDetachedOnlyWhereKubernetesAttachedIt", "TestVolumeOfAnotherClusterIsNotDetached"}},
	{"a snapshot is waited for within the call, past the caller's time",
		[]string{"TestSnapshotIsReadyOnlyWhenOnline", "TestSnapshotOfABusyVolumeWaits"}},
	{"a deletion whose request failed is told as done",
		[]string{"TestDeleteSnapshotTakesNoErrorForGone", "TestDeleteVolumeWhoseAnswerIsLost"}},
	{"a copy is without labels if the process dies: nobody can tell whose it is",
		[]string{"TestCrashPoints", "TestProvisionalTitlesOfLongNamesDiffer", "TestACopyFinishedMeanwhileIsNotDropped",
			"TestASnapshotFinishedMeanwhileIsNotDropped"}},
	{"a look that failed is read as a volume of size 0, or as none: a final error for a fault that passes, or another disk",
		[]string{"TestALookThatFailsIsNeitherFinalNorNothing", "TestEmptyAnswersAreNoAnswers"}},
	{"each wait takes five seconds at least, and states are waited for that the answer told already",
		[]string{"TestAttachTakesOneCallAndDetachTwo", "TestCreateVolumeTakesTwoCallsAndItsRetryOne", "TestBackoffGrowsToItsBoundWithJitter"}},
	{"callers queue past their deadline at a server, and what they asked for is done when they have given up",
		[]string{"TestCallersLeaveTheQueueAndTheRetryJoinsWhatHasBegun", "TestQueueIsLeftWhenTheContextEnds", "TestServersDoNotWaitForEachOther",
			"TestABusyVolumeDoesNotHoldUpTheOthers"}},
	{"a call for one thing lists the whole account, and a list that is not whole reads as \"it is gone\"",
		[]string{"TestCostDoesNotGrowWithTheAccount", "TestNothingIsConcludedFromAListOfTheAccount",
			"TestGrowthOfAVolumeWithSnapshotsListsNoAccount", "TestReadersDoNotWaitForChangesToEnd"}},
	{"a copy that its node cannot use is made, so that a Pod waits in place of a claim that is refused; or one that it could is refused",
		[]string{"TestCopiesOfEncryptedVolumes", "TestCopiesOfSourcesThatTellNothingAreLeftToTheNode",
			"TestSnapshotsTellTheEncryptionOfTheirVolume"}},

	// Of nodes, as container orchestrators call them; pkg/disk has more.
	{"another filesystem than the one asked for, or a copy whose data is not there yet, is formatted over",
		[]string{"TestStageKeepsAnotherFilesystem", "TestStageNeverFormatsACopy", "TestDiskThatIsNotAsTheStorageClassSays"}},
	{"a stale link, or the device that a volume had before, is believed; a device that comes late is not waited for",
		[]string{"TestStaleLinkIsNotBelieved", "TestVolumesThatSwapTheirDevices", "TestStageWaitsForTheDevice", "TestStageNeedsTheAttachedVolume"}},
	{"a volume that is mounted already is probed, checked or formatted again",
		[]string{"TestStageOfAStagedVolumeTouchesNothing"}},
	{"a volume is published that is not staged, or from another volume's staging path: the Pod gets the node's own disk, or a stranger's",
		[]string{"TestNodePublishNeedsTheStagedVolume", "TestPublishOfAnotherVolumesStagingPathIsRefused"}},
	{"mkfs is killed at the caller's deadline",
		[]string{"TestDeadlineDoesNotKillMkfs"}},
	{"one mount of several at a path is taken down",
		[]string{"TestStackedMountsAreAllTakenDown"}},
	{"errors are not mended before mounting, a copy cannot be mounted beside its source, options of mkfs are left out",
		[]string{"TestFilesystemWithErrorsIsCheckedBeforeItIsMounted", "TestXFSCloneIsMountedBesideItsSource",
			"TestMkfsOptionsOfTheStorageClassReachMkfs"}},
	{"a raw block volume is measured as the filesystem that its node lies on, or what is not the volume is measured",
		[]string{"TestNodeGetVolumeStats", "TestNodeGetVolumeStatsOfARawBlockVolume"}},
	{"what was written last is lost when a volume is detached after unstaging it failed",
		[]string{"TestDetachmentAfterAFailedUnstageLosesNothing"}},
	{"a filesystem that the kernel gave up is handed to the next Pod, or one that another mount namespace has is not",
		[]string{"TestPodAfterAShutDownFilesystem", "TestStageWhileAnotherMountNamespaceHasTheVolume"}},
	{"a volume that is staged with other mount options is taken for one as it was asked for",
		[]string{"TestStageWithOtherMountOptionsIsAlreadyExists"}},
	{"a raw block volume that is encrypted on the node never grows in use, as the kubelet is not asked to have its node expanded",
		[]string{"TestExpandAsksForTheNodeWhereItHasSomethingToDo"}},
	{"of a disk with several partitions one is guessed",
		[]string{"TestDiskWithSeveralPartitionsIsRefused"}},
	{"a node plugin that is started anew does not know what it had begun",
		[]string{"TestPluginRestartBetweenEveryTwoCalls"}},
}

// testedIn are the packages whose tests keep from known defects.
var testedIn = []string{".", "../cloud", "../../internal/fence", "../../cmd/csi-driver"}

func TestEveryKnownDefectHasItsTests(t *testing.T) {
	there := map[string]bool{}
	for _, folder := range testedIn {
		for _, name := range testsIn(t, folder) {
			there[name] = true
		}
	}
	for _, known := range knownDefects {
		if len(known.tests) == 0 {
			t.Errorf("no test keeps from this: %s", known.defect)
		}
		for _, name := range known.tests {
			if !there[name] {
				t.Errorf("there is no %s, which kept from this: %s", name, known.defect)
			}
		}
	}
}

// testsIn lists the tests of a package.
func testsIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(folder, file.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range parsed.Decls {
			if function, ok := declared.(*ast.FuncDecl); ok && function.Recv == nil && strings.HasPrefix(function.Name.Name, "Test") {
				names = append(names, function.Name.Name)
			}
		}
	}
	return names
}
