// Marching cubes, reduced to areas: no table, the polygons follow from the corners.
//
// Rules that reproduce the published table of 256 areas for any spacing:
// - a code with more than four corners set has the surface of its complement;
// - on a face with two diagonal corners set, each corner is cut off alone;
// - a polygon that is not planar is split into the triangles whose total area is largest under unit
//   spacing, and those triangles are then measured with the spacing asked for.
#include "experiments/metrics/surface_element.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace voxlab {
namespace {

using Point = std::array<int, 3>;  // twice the coordinates: edge midpoints are integers
using Polygon = std::vector<Point>;
using Triangle = std::array<Point, 3>;

bool is_set(int code, const Point& corner) {
  return (code >> (7 - (4 * corner[0] + 2 * corner[1] + corner[2]))) & 1;
}

Point midpoint(const Point& a, const Point& b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2]}; }

using Segment = std::array<Point, 2>;

// Where the surface crosses the face at `side` of `axis`.
void cross_face(int code, int axis, int side, std::vector<Segment>& segments) {
  std::array<Point, 4> ring{};
  constexpr std::array<std::array<int, 2>, 4> turn{{{0, 0}, {1, 0}, {1, 1}, {0, 1}}};
  for (int i = 0; i < 4; ++i) {
    ring[i][axis] = side;
    ring[i][(axis + 1) % 3] = turn[i][0];
    ring[i][(axis + 2) % 3] = turn[i][1];
  }
  std::vector<Point> crossings;
  for (int i = 0; i < 4; ++i)
    if (is_set(code, ring[i]) != is_set(code, ring[(i + 1) % 4]))
      crossings.push_back(midpoint(ring[i], ring[(i + 1) % 4]));
  if (crossings.size() == 2) segments.push_back({crossings[0], crossings[1]});
  if (crossings.size() == 4) {
    // Crossing i lies between corners i and i + 1: a set corner i + 1 joins crossings i and i + 1.
    const int first = is_set(code, ring[1]) ? 0 : 1;
    segments.push_back({crossings[first], crossings[first + 1]});
    segments.push_back({crossings[first + 2], crossings[(first + 3) % 4]});
  }
}

// Each crossing ends two segments, so the segments close to polygons.
std::vector<Polygon> surface_polygons(int code) {
  std::vector<Segment> segments;
  for (int axis = 0; axis < 3; ++axis)
    for (int side = 0; side < 2; ++side) cross_face(code, axis, side, segments);
  std::vector<Polygon> polygons;
  while (!segments.empty()) {
    Polygon polygon{segments.back()[0]};
    Point end = segments.back()[1];
    segments.pop_back();
    while (end != polygon.front()) {
      polygon.push_back(end);
      const auto next = std::find_if(segments.begin(), segments.end(),
                                     [&](const Segment& s) { return s[0] == end || s[1] == end; });
      end = (*next)[0] == end ? (*next)[1] : (*next)[0];
      segments.erase(next);
    }
    polygons.push_back(std::move(polygon));
  }
  return polygons;
}

double area(const Triangle& t, const Spacing& spacing) {
  std::array<double, 3> u{}, v{};
  for (int a = 0; a < 3; ++a) {
    u[a] = spacing[a] * 0.5 * (t[1][a] - t[0][a]);
    v[a] = spacing[a] * 0.5 * (t[2][a] - t[0][a]);
  }
  return 0.5 * std::hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2],
                          u[0] * v[1] - u[1] * v[0]);
}

struct Split {
  std::vector<Triangle> triangles;
  double unit_area = 0;
};

// The triangulation of polygon[first..last] of largest unit area. Polygons have at most six
// corners.
Split largest_split(const Polygon& polygon, size_t first, size_t last) {
  Split best;
  for (size_t k = first + 1; k < last; ++k) {
    Split left = largest_split(polygon, first, k);
    const Split right = largest_split(polygon, k, last);
    const Triangle middle{polygon[first], polygon[k], polygon[last]};
    left.triangles.insert(left.triangles.end(), right.triangles.begin(), right.triangles.end());
    left.triangles.push_back(middle);
    left.unit_area += right.unit_area + area(middle, {1, 1, 1});
    // The margin keeps rounding from choosing between splits of equal area.
    if (left.unit_area > best.unit_area + 1e-9) best = std::move(left);
  }
  return best;
}

double surface_area(int code, const Spacing& spacing) {
  double sum = 0;
  for (const Polygon& polygon : surface_polygons(code))
    for (const Triangle& t : largest_split(polygon, 0, polygon.size() - 1).triangles)
      sum += area(t, spacing);
  return sum;
}

// 2-d: the same through the midpoints of a square's sides.
double contour_length(int code, const Spacing& spacing) {
  const double diagonal = 0.5 * std::hypot(spacing[1], spacing[2]);
  switch (code) {
    case 0b0000:
    case 0b1111:
      return 0;
    case 0b0011:
    case 0b1100:
      return spacing[2];
    case 0b0101:
    case 0b1010:
      return spacing[1];
    case 0b0110:
    case 0b1001:
      return 2 * diagonal;
    default:
      return diagonal;
  }
}

}  // namespace

std::vector<double> surface_element_sizes(int rank, const Spacing& spacing) {
  std::vector<double> sizes(neighbourhood_codes(rank));
  for (int code = 0; code < static_cast<int>(sizes.size()); ++code) {
    if (rank == 2) {
      sizes[code] = contour_length(code, spacing);
    } else {
      const int few = std::popcount(static_cast<unsigned>(code)) <= 4 ? code : 255 - code;
      sizes[code] = surface_area(few, spacing);
    }
  }
  return sizes;
}

}  // namespace voxlab
