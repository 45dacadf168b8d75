package disk_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// knownDefects are mistakes that node plugins for block storage have been seen to make, on UpCloud and elsewhere, and the
// tests that keep this package from making them. Who removes or renames such a test has to say here what stands for it.
// Those of controllers, and of the calls of nodes, are listed in pkg/driver.
var knownDefects = []struct {
	defect string
	tests  []string // of this package
}{
	{"a disk that holds another filesystem, a partition table or something unknown is formatted over",
		[]string{"TestStageNeverFormatsADiskThatHoldsSomething", "TestEncryptionRefusesWhatIsInTheClear"}},
	{"\"nothing found\" by blkid is taken for blank, though the disk could not be read or holds what blkid does not know",
		[]string{"TestStageNeverFormatsADiskThatHoldsSomething"}},
	{"a copy whose data is not there yet is formatted",
		[]string{"TestStageRefusesToFormatCopiesAndReadOnlyVolumes", "TestABlankCopyOrReadOnlyVolumeIsNotEncrypted"}},
	{"an mkfs that was killed leaves a volume that is neither formatted nor blank, and is stuck",
		[]string{"TestStageFormatsAgainAfterAnInterruption", "TestAnInterruptedBtrfsIsMadeAgain", "TestEncryptionBeginsAnewAfterAnInterruption",
			"TestStagingANewVolumeMayEndAnywhere"}},
	{"an option that a StorageClass has for mkfs takes one of the driver's away, and an mkfs that is killed leaves a volume that is stuck",
		[]string{"TestMkfsKilledAtAnyWriteLeavesAVolumeThatIsFormatted", "TestMkfsOptionsThatEndangerDataAreRefused"}},
	{"a PersistentVolume that names the node's own disk gives a Pod the node's root folder",
		[]string{"TestDiskThatTheNodeLivesOnIsNotStaged", "TestMountsOfTheHostAreDistinguishedFromTheDriversOwn"}},
	{"a target path that is a symbolic link leads the mount elsewhere, where nothing takes it down",
		[]string{"TestVolumesAreNotMountedThroughLinks"}},
	{"a new encrypted volume whose random bytes look like a filesystem is refused",
		[]string{"TestEncryptedVolumeWhoseRandomBytesLookLikeAFilesystemIsStaged"}},
	{"a mount option of a StorageClass mounts another device, another mount or without the journal, or swallows the driver's own options",
		[]string{"TestMountOptionsThatUndoTheDriversAreRefused"}},
	{"a filesystem that was made by other means is taken for what an interrupted format left",
		[]string{"TestAFormatIsNotTakenUpAgainOnAFilesystemMadeByOtherMeans"}},
	{"an mkfs or a luksFormat outlives its driver, and writes to the disk together with that of the next",
		[]string{"TestFormattingEndsWithTheDriver"}},
	{"what was interrupted is begun anew over data that somebody put there since",
		[]string{"TestAFormatIsNotTakenUpAgainOnAFilesystemInUse", "TestAFormatIsNotTakenUpAgainOnWhatIsNoFilesystemOfOurs",
			"TestAWholeBtrfsIsNotFormattedAgain", "TestEncryptionDoesNotBeginAnewOnSomebodyElsesLUKS", "TestARawBlockVolumeLosesTheMarkerOfAFormat"}},
	{"mkfs, fsck or a growth is killed at the caller's deadline",
		[]string{"TestStageGoesOnWhenTheCallerLeaves"}},
	{"options of mkfs from a StorageClass force it, or lead to another device",
		[]string{"TestMkfsOptionsThatEndangerDataAreRefused", "TestMkfsOptionsThatFailCanBeMended", "TestMkfsOptionsShapeTheFilesystem"}},
	{"a link by serial is believed that is stale, or whose disk is another one with the same beginning",
		[]string{"TestAStaleLinkIsNotBelieved", "TestStageRefusesAWrongDevice", "TestOtherSerialNumbersAreNotTheVolumes"}},
	{"a disk that is replaced while work waits for its turn is written to",
		[]string{"TestADiskThatWasReplacedMeanwhileIsNotTouched", "TestADiskThatWasReplacedBeforeItsTurnIsNotFormatted"}},
	{"a disk that is put to use while it waits to be formatted is overwritten, by mkfs.ext4 and luksFormat or by the next try",
		[]string{"TestADiskThatIsWrittenToBeforeItsTurnIsNotFormatted", "TestADiskThatIsMountedBeforeItsTurnIsNotFormatted"}},
	{"a disk that another program has for a moment is waited for, and what that program wrote is erased or written over with the marker",
		[]string{"TestADiskThatIsPutToUseWhileItIsWaitedForIsNotErased", "TestADiskThatIsPutToUseAfterItWasProvedBlankIsNotMarked",
			"TestWhatIsWrittenOverAMarkerWhileTheDiskIsWaitedForStays"}},
	{"a disk is taken to be in use by others, as a program that was just started for another volume has a copy of what is open",
		[]string{"TestADiskThatIsInUseForAMomentIsFormatted", "TestADiskThatWasWrittenToIsFreeForTheNextProgram"}},
	{"a volume that is being unmounted is told to have lost its disk",
		[]string{"TestABtrfsThatIsUnmountedMeanwhileHasNotLostItsDisk"}},
	{"a disk whose node has come is used before it can be opened",
		[]string{"TestADiskThatCannotBeOpenedYetIsWaitedFor"}},
	{"a new encrypted volume is used through a mapping that its head does not open again",
		[]string{"TestEncryptedVolumeThatSomebodyElseOpenedWhileItWasMadeIsMadeAnew"}},
	{"a device is waited for by sleeping, past the caller's deadline, or for its link only",
		[]string{"TestFindWaitsForTheDevice", "TestFindEndsWithTheCallersContext", "TestFindDoesWithoutWatchers", "TestDisksAreFoundOnEveryBus",
			"TestLinksAreFoundOnEveryBus"}},
	{"a device is probed, checked or formatted though it is mounted already",
		[]string{"TestStageFormatsABlankVolumeAndMountsItAgain", "TestStageTwiceWithReadOnlyAsAMountOption"}},
	{"something else that is mounted at the staging path is taken for the volume",
		[]string{"TestStageRefusesAPathThatIsInUse", "TestStageReplacesTheMountOfAnEarlierAttachment",
			"TestPublishReplacesATargetOfAnEarlierAttachment", "TestACopyIsMountedBesideItsOrigin"}},
	{"a volume that is not staged is published: the data goes to the node's own disk, or in the clear over ciphertext",
		[]string{"TestPublishRequiresTheStagedVolume", "TestPublishBlockRequiresTheStagedVolume", "TestEncryptedRawBlockVolume"}},
	{"a read-only raw block volume takes writes, or a volume stays protected from them",
		[]string{"TestAReadOnlyBlockVolumeTakesNoWrites", "TestWriteProtectionThatWasLeftBehindIsTakenOff"}},
	{"a volume with a single writer is published to a second",
		[]string{"TestPublishSingleWriter", "TestPublishBlock"}},
	{"mounting read-only writes to the volume, or shows what its filesystem never was",
		[]string{"TestReadOnlyVolumesAreNotWrittenTo", "TestAReadOnlyVolumeWithAJournalToReplay", "TestPublishReadOnly"}},
	{"one mount of several at a path is taken down, or none whose propagation is not shared",
		[]string{"TestUnstageTakesDownStackedMounts", "TestPublishAndUnpublish"}},
	{"a mount point that answers errors only, or whose disk has left, can never be taken down",
		[]string{"TestAnXFSThatShutDownIsToldAndTakenDown", "TestConditionTellsThatTheDiskHasLeft", "TestStageReplacesTheMountOfAnEarlierAttachment"}},
	{"unstaging is told as done while the volume is in use, so that the disk is detached under a mounted filesystem",
		[]string{"TestUnstageFailsWhileAnotherMountNamespaceHasTheVolume", "TestUnstageBeforeUnpublishIsNotDone", "TestUnstageSaysWhoSwapsOnTheVolume",
			"TestUnstageWaitsUntilTheDeviceIsReleased", "TestEncryptedVolumeInUseIsNotClosed"}},
	{"what was written last is lost, as a volume that could not be taken down is detached all the same",
		[]string{"TestUnstageThatFailsHasWrittenEverythingToDisk", "TestUnstageThatFailsHasWrittenWhatCameWhileItWaited",
			"TestUnpublishThatFailsHasWrittenEverythingToDisk", "TestRawBlockVolumesAreWrittenToDiskWhenTheyAreTakenDown",
			"TestEncryptedVolumeThatCannotBeUnstagedIsWrittenToDisk"}},
	{"a disk that hangs holds up other volumes, or callers past their deadline without saying which disk it is",
		[]string{"TestADiskThatHangsHoldsUpItsOwnVolumeOnly", "TestLookingAtADiskThatHangsEndsWithTheCallersContext"}},
	{"a filesystem that is mounted elsewhere on the node cannot be staged again, and the error does not say where",
		[]string{"TestStageOfAVolumeThatAnotherMountNamespaceHas", "TestStageAtASecondPath", "TestStageOfADiskThatAProgramHasForItself",
			"TestErrorsNameTheLoopDeviceOfARawBlockVolume", "TestEncryptedVolumeThatAnotherMountNamespaceHasIsStagedAgain"}},
	{"a filesystem that the kernel has shut down or made read-only is handed to the next Pod as if it were well",
		[]string{"TestStageMountsADeadFilesystemAgain", "TestPublishMountsADeadFilesystemAgain",
			"TestADeadFilesystemInUseIsRefusedWithItsUsers", "TestADeadFilesystemStagedReadOnlyIsMountedAgain",
			"TestEncryptedVolumeWithADeadFilesystemIsMountedAgain"}},
	{"a target folder or file with data in it is removed",
		[]string{"TestUnpublishKeepsWhatIsNotEmpty"}},
	{"a crash between any two steps strands the volume or loses what it holds",
		[]string{"TestStagingANewVolumeMayEndAnywhere", "TestStagingAndUnstagingAVolumeWithDataMayEndAnywhere"}},
	{"errors in a filesystem are not mended before it is mounted, or are never told",
		[]string{"TestConditionTellsOfErrorsOfExt4", "TestConditionTellsOfErrorsOfBtrfs", "TestConditionOfAHealthyVolume"}},
	{"a copy cannot be mounted beside its origin, as both have one UUID",
		[]string{"TestACopyIsMountedBesideItsOrigin", "TestEncryptedCopyBesideItsOrigin"}},
	{"a volume that grew, or a copy that is larger, keeps its small filesystem",
		[]string{"TestGrowMakesAMountedFilesystemAsLargeAsItsDisk", "TestStageGrowsACopyThatIsLargerThanItsSource",
			"TestStageGrowsAfterAnInterruptedExpansion", "TestEncryptedVolumeGrowsWhileInUse"}},
	{"a staged volume with other mount options is taken for one as it was asked for, or the options of a retry for others",
		[]string{"TestStageAgainWithOtherMountOptions", "TestStageAgainWithTheSameMountOptions",
			"TestStageAtASecondPathWithOtherMountOptions", "TestMountOptionsWithAnSELinuxContext"}},
	{"a volume does not grow where its path is a target that cannot be written to, or a folder in it",
		[]string{"TestGrowOfATargetThatCannotBeWrittenTo", "TestGrowOfWhatIsStagedReadOnlyChangesNothing"}},
	{"an ext filesystem with errors is not grown, and the error says \"Permission denied\" only",
		[]string{"TestGrowOfAnExtWithErrorsSaysWhatToDo"}},
	{"a growth beyond the storage's size is waited for though it cannot come", []string{"TestGrowBeyondTheStorageIsRefusedWithItsCause"}},
	{"a growth is told as done though the kernel has not seen it, or changes what is not the volume",
		[]string{"TestGrowWaitsForTheDiskAndSaysWhatItSees", "TestGrowOfWhatIsNotTheVolume", "TestGrowNeverChangesAPartitionTableThatIsNotWhole"}},
	{"volumes of UpCloud's own driver, whose filesystem is on a partition, are not mounted or not grown",
		[]string{"TestStageMountsPartitionOneOfUpCloudsOwnDriver", "TestGrowTakesThePartitionOfUpCloudsOwnDriverAlong"}},
	{"of a disk with several partitions the last one is taken",
		[]string{"TestStageNeverFormatsADiskThatHoldsSomething"}},
	{"a raw block volume is measured as the filesystem that its node lies on",
		[]string{"TestPublishBlock", "TestStats"}},
	{"the passphrase of an encrypted volume is an argument or in a log, or a wrong one is not told from other faults",
		[]string{"TestThePassphraseIsNoArgument", "TestEncryptedVolumeWithTheWrongPassphraseIsNotTouched", "TestEncryptionNeedsAPassphrase"}},
	{"a volume is a filesystem and a raw block device at a time, or a node for the one is made within the other",
		[]string{"TestAVolumeIsNotStagedBothAsAFilesystemAndAsRawBlock"}},
	{"an ID that comes with a request is made a path, and what is there is removed",
		[]string{"TestUnstageOfAnIDThatIsAPathTouchesNothing"}},
	{"what could not be staged stays mounted or open, though nobody unstages it before it is detached",
		[]string{"TestAStageThatFailsAfterMountingLeavesNoMount", "TestEncryptedVolumeThatCannotBeStagedIsClosedAgain"}},
	{"an encrypted volume stays open after it was taken down",
		[]string{"TestEncryptedVolumeThatWasLeftOpenIsClosed", "TestEncryptedVolumeKeepsItsData"}},
	{"what is encrypted is taken for blank or used in the clear, or what is in the clear encrypted over",
		[]string{"TestAnEncryptedVolumeInTheClearIsRefused", "TestEncryptionRefusesWhatIsInTheClear", "TestABlankDiskIsEncryptedFirst"}},
	{"disks that hang take all turns to format, and no other volume of the node is formatted any more",
		[]string{"TestFormatsThatHangDoNotKeepOthersFromTheirs"}},
	{"who waits for a volume that is busy learns that the deadline is exceeded, and not by what",
		[]string{"TestWhoWaitsToBeFormattedLearnsForWhom", "TestWhoWaitsForABusyVolumeLearnsWhatItDoes",
			"TestWhoWaitsForADeviceLearnsWhich", "TestWhoWaitsIsAnsweredBeforeTheDeadline"}},
	{"many new volumes at once take the node down with mkfs",
		[]string{"TestFewVolumesAreFormattedAtOnce"}},
	{"disks that are not volumes count as if they were, or the other way round",
		[]string{"TestDisksOfTheMachine", "TestDisksTellWhatIsStagedFromWhatIsNot"}},
}

func TestKnownDefectsHaveTheirTests(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Skipf("needs the sources of the tests: %v", err)
	}
	have := make(map[string]bool)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok {
				have[function.Name.Name] = true
			}
		}
	}
	for _, known := range knownDefects {
		if len(known.tests) == 0 {
			t.Errorf("no test keeps us from this: %s", known.defect)
		}
		for _, test := range known.tests {
			if !have[test] {
				t.Errorf("there is no %s, which was to keep us from this: %s", test, known.defect)
			}
		}
	}
}
