// Dataset folders in the Medical Segmentation Decathlon's and nnU-Net's raw layouts (v1 and v2).
//
//   dataset.json     v1: "modality", "labels" {"1": "name"}, "training" and "test" lists
//                    v2: "channel_names", "labels" {"name": 1, "region": [1, 2]}, "file_ending"
//   imagesTr/        ID.nii.gz with the channels in its fourth axis, or ID_0000.nii.gz,
//   ID_0001.nii.gz ... labelsTr/        ID.nii.gz imagesTs/, labelsTs/   likewise, both optional
//   train.txt, test.txt    optional: one case id a line; they decide over dataset.json's lists
//
// 2-d images are PNG or JPEG files by the same rules ("file_ending"): an RGB file has its three
// channels in it. Two keys of our own are for folders that keep neither layout's names:
//   "file_pattern"   {"image": "imagesTr/{id}.jpg", "label": "labelsTr/{id}_segmentation.png"}
//   "label_values"   {"0": 0, "255": 1}: what label files hold for each value of "labels"
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "experiments/data/volume.h"

namespace voxlab {

struct DatasetCase {
  std::string id;
  std::vector<std::filesystem::path> images;  // one file with every channel, or one file a channel
  std::filesystem::path label;                // empty: not labelled
};

struct LabelClass {
  std::string name;
  int64_t value = 0;  // in label files, those that we write too
};

// Several label values under one name, possibly overlapping others: BraTS's whole tumour.
struct LabelRegion {
  std::string name;
  std::vector<int64_t> values;
};

struct Dataset {
  std::filesystem::path root;
  std::string name;
  std::vector<std::string> channels;  // "T1w", "CT", ...
  std::vector<LabelClass> classes;    // by rising value; the index is the class a network predicts
  std::vector<LabelRegion> regions;   // as dataset.json lists them; none in most
  std::vector<DatasetCase> train, test;

  int64_t class_count() const { return static_cast<int64_t>(classes.size()); }
};

// Error naming the file and the key, line or case that is wrong: a case that lacks a channel or its
// label, a case in both lists, classes without 0, paths that leave the folder.
Dataset read_dataset(const std::filesystem::path& root);

// One id a line; blank lines are skipped. Error, with file and line, on a repeated or unusable id.
std::vector<std::string> read_case_list(const std::filesystem::path& file);

// A case as its files have it.
struct RawCase {
  Volume volume;  // voxels f32
  Tensor labels;  // (z, y, x) i32, class indices; undefined when the case has no label
  std::vector<std::string> warnings;
};

// Error when channels or label differ in size, voxels are not finite, or a label value is no class.
RawCase read_case(const Dataset& dataset, const DatasetCase& which);

// An image alone, with the number of channels expected (0: any).
Volume read_image(const std::vector<std::filesystem::path>& files, int64_t channels,
                  std::vector<std::string>& warnings);

}  // namespace voxlab
